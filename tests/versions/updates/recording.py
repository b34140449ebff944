"""Records what a machine process of this version tells the one that takes over from it.

usage: recording.py FOLDER

The machine runs in virtual time, so that the same version writes the same bytes on every host.
"""

import sys
from pathlib import Path

import msgspec

from lab.rehearsal.side import Side, assembled_side, boot
from lab.scenario import Scenario, check_scenario
from vmm.update.documents import FORMAT, EarlyDocument, StateDocument, encode
from vmm.update.handing_over import early_document, state_document
from vmm.update.kept import Asker, Kept, Stop
from vmm.update.ownership import abandon, mappings_of
from vmm.update.suspended_machine import SuspendedMachine

MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
EARLY, STATE = "early.msgpack", "state.msgpack"
KEPT, SUSPENDED = "kept.msgpack", "suspended.msgpack"


def recorded_scenario() -> Scenario:
    """Return a machine that has a bit of everything: both backends, each model, a vIOMMU that translates."""
    common = {"enable_migration": "on", "dma_rate": "16MiB/s"}
    devices = [
        {"name": "qat0", "model": "qat", "address": "00:04.0", **common},
        {"name": "qat1", "model": "qat", "address": "00:05.0", "backend": "type1", **common},
        {"name": "nic0", "model": "nic", "address": "00:06.0", **common},
        {"name": "gpu0", "model": "gpu", "address": "00:07.0", "local_memory": "1MiB", **common},
    ]
    machine = {
        "memory": {"size": "128MiB"},
        "guest": {"cpu_dirty_rate": "2MiB/s", "working_set": "4MiB", "iommu": "nopt"},
        "device": devices,
    }
    document = {"name": "recorded", "title": "Recorded", "machine": machine, "expect": {"outcome": "updated"}}
    return check_scenario(document, "recorded")


def documents_of(side: Side) -> tuple[EarlyDocument, StateDocument]:
    """Return what a machine hands over that has worked for a while."""
    boot(side, 1)
    side.world.run_for(100)
    early = early_document(side.machine, MACHINE)
    side.machine.stand_still()
    mappings = mappings_of(side.machine)
    abandon(side.machine)
    return early, state_document(side.machine, mappings, pause=3, epoch=2, controller=9, released=-1)


def kept_of(early: EarlyDocument, state: StateDocument) -> Kept:
    """Return what a program leaves for the one that takes its place."""
    numbers, stop = tuple(range(10, 10 + len(early.descriptors))), Stop(3, was_running=True, last_executed_ns=7)
    return Kept(FORMAT, encode(early), encode(state), numbers, "t", stop, Asker(9, 2, 9))


def suspended_of(early: EarlyDocument, state: StateDocument) -> SuspendedMachine:
    """Return what a machine leaves that waits in files."""
    return SuspendedMachine(FORMAT, MACHINE, early.ram_bytes, encode(msgspec.structs.replace(state, mappings=())))


def main() -> None:
    """Write every document to a folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with assembled_side(recorded_scenario()) as side:
        early, state = documents_of(side)
    (folder / EARLY).write_bytes(encode(early))
    (folder / STATE).write_bytes(encode(state))
    (folder / KEPT).write_bytes(encode(kept_of(early, state)))
    (folder / SUSPENDED).write_bytes(encode(suspended_of(early, state)))


if __name__ == "__main__":
    main()
