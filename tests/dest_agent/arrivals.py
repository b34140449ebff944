"""Journals of a machine that is arriving, up to each of its states."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.fake_machine import MACHINE, Held, held
from vm_migration.api.v1 import types_pb2
from vm_migration.handover.arrival import activating, active, given_up, prepared, ready, received_whole
from vm_migration.handover.evidence import ProcessAnswer
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.secret import secret_hash
from vm_migration.handover.states import State
from vmm.assembly.machine_state import STATE_FORMAT

A = "5f0e8d0a-1111-4222-8333-444455556666"
KEY = AttemptKey(MACHINE, A, 2, 1)
SECRET = bytes(range(32))
MIB = 1 << 20
SPECIFICATION = b'{"name": "fake", "memory": {"size": "64MiB"}, "viommu": {"model": "none"}}'
PREPARED = prepared(None, KEY, source="host-a", secret_hash=secret_hash(SECRET), specification=SPECIFICATION.decode())


def requirements(name: str = "fake", machine: str = MACHINE) -> types_pb2.Requirements:
    """Return what such a machine asks of a host."""
    return types_pb2.Requirements(
        machine=machine,
        name=name,
        specification=SPECIFICATION,
        ram_bytes=64 * MIB,
        version="0.1.0",
        state_format=STATE_FORMAT,
    )


def whole(record: Record) -> Record:
    return received_whole(record, pause=1)


def made_ready(record: Record) -> Record:
    return ready(record, pause=1, was_running=True)


def being_activated(record: Record) -> Record:
    return activating(record, pause=1, secret=SECRET)


def owned(record: Record) -> Record:
    return active(record, process=ProcessAnswer(record.instance, record.controller, running=True, pause=1))


def not_wanted(record: Record) -> Record:
    return given_up(record, reason="cancelled")


_STEPS: dict[State, tuple[Callable[[Record], Record], ...]] = {
    State.PREPARED: (),
    State.READY: (whole, made_ready),
    State.ACTIVATING: (whole, made_ready, being_activated),
    State.ACTIVE: (whole, made_ready, being_activated, owned),
    State.DISCARDED: (not_wanted,),
}


@contextmanager
def arriving(folder: Path, state: State, *further: Callable[[Record], Record]) -> Iterator[Held]:
    """Yield a machine whose journal at its destination came to a state."""
    running = state is State.ACTIVE
    with held(folder, PREPARED, *_STEPS[state], *further, running=running) as machine:
        machine.machine.pause_number = 1
        machine.machine.incoming = state is not State.ACTIVE
        yield machine
