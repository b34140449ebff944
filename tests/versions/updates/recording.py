"""Records what a machine process of this version tells the one that takes over from it.

usage: recording.py FOLDER

The machine runs in virtual time, so that the same version writes the same bytes on every host.
"""

import sys
from pathlib import Path

from lab.rehearsal.side import Side, assembled_side, boot
from lab.scenario import Scenario, check_scenario
from vmm.update.documents import EarlyDocument, StateDocument, encode
from vmm.update.handing_over import early_document, state_document
from vmm.update.ownership import abandon, mappings_of

MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
EARLY, STATE = "early.msgpack", "state.msgpack"


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


def main() -> None:
    """Write both documents to a folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with assembled_side(recorded_scenario()) as side:
        early, state = documents_of(side)
    (folder / EARLY).write_bytes(encode(early))
    (folder / STATE).write_bytes(encode(state))


if __name__ == "__main__":
    main()
