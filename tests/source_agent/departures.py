"""Journals of a machine that is leaving, up to each of its states."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from source_agent.terms import Terms, encode
from tests.fakes.fake_machine import MACHINE, Held, held
from vm_migration.api.v1 import types_pb2
from vm_migration.handover.departure import begin, released, stopped
from vm_migration.handover.disk import Disk
from vm_migration.handover.evidence import ProcessAnswer, SideView
from vm_migration.handover.ownership import create
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.states import State

A, B = "5f0e8d0a-1111-4222-8333-444455556666", "6f0e8d0a-1111-4222-8333-444455556666"
KEY = types_pb2.AttemptKey(machine=MACHINE, attempt=A, epoch=2, term=1)
SECRET = bytes(range(32))
TERMS = Terms(downtime_limit_ms=300, timeout_ms=10_000, force_on_timeout=False)
SPECIFICATION = '{"name": "fake", "memory": {"size": "64MiB"}, "viommu": {"model": "none"}}'

OWNER = msgspec.structs.replace(
    create(MACHINE, instance="", was_running=True, specification=SPECIFICATION), run_confirmed=True
)


def outgoing(record: Record, terms: Terms = TERMS) -> Record:
    key = AttemptKey(MACHINE, A, 0, 1)
    return begin(record, key, destination="host-b", was_running=True, secret=SECRET, policy=encode(terms))


def at_stop(record: Record) -> Record:
    return stopped(record, pause=1, bound_ms=1000)


def given_away(record: Record) -> Record:
    answer = ProcessAnswer(record.instance, record.controller, running=False, pause=1)
    return released(record, destination=SideView(A, State.READY, pause=1), process=answer)


_STEPS: dict[State, tuple[Callable[[Record], Record], ...]] = {
    State.OWNER: (),
    State.OUTGOING: (outgoing,),
    State.STOPPED: (outgoing, at_stop),
    State.RELEASED: (outgoing, at_stop, given_away),
}


@contextmanager
def leaving(folder: Path, state: State, disk: Disk | None = None) -> Iterator[Held]:
    """Yield a machine whose journal at its source came to a state."""
    running = state in (State.OWNER, State.OUTGOING)
    with held(folder, OWNER, *_STEPS[state], running=running, disk=disk) as machine:
        yield machine
