"""A suspended machine that waits in files of its host: where, and whether it does at this moment.

::

    PATH              RAM, on a memory file system: the specification's memory.path
    PATH.suspended    where everything else stood, written by the process that left it, gone before the guest wakes

The second lies beside the first, so that a file system that is made anew takes both: where one is there the other is.
As long as it lies there the guest has not run since. Where it does not, nothing waits any more; but that is believed
only of the folder in which it was left, which a host that has just started may not have mounted yet.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from vmm.assembly.specification import MachineSpecification
from vmm.update import suspended_machine
from vmm.update.documents import InvalidHandover
from vmm.update.file_systems import kind_of_file_system

VOLATILE: Final = "memory"
"""A file system that no restart of its host leaves anything of."""
_VOLATILE_KINDS: Final = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True, slots=True)
class WaitingPlace:
    """Where a machine waits; `home` tells the folder that the file is in from any other at that path."""

    path: Path
    home: str


def waiting_place(specification: MachineSpecification) -> WaitingPlace | None:
    """Return where a machine waits beside its RAM; None of one whose RAM is in no file.

    Raises:
        OSError: The folder of its RAM's file cannot be looked at.
    """
    memory = specification.memory
    if memory.backing != "file" or memory.path is None:
        return None
    path = Path(memory.path)
    volatile = kind_of_file_system(path.parent) in _VOLATILE_KINDS
    return WaitingPlace(suspended_machine.beside(path), VOLATILE if volatile else _identity(path.parent))


def waits(
    machine: UUID, specification: MachineSpecification, place: WaitingPlace, pause: int, *, believed: bool = False
) -> bool | None:
    """Tell whether a machine waits at a place since a stop; None where nobody can know, or it is not as it was left.

    Of a file that is not there an operator is `believed` that it is gone for good, whatever is at the place now.
    """
    memory = specification.memory
    try:
        if memory.path is None or Path(memory.path).stat().st_size != memory.size:
            return None
        place.path.stat()
        return True if suspended_machine.read(place.path, str(machine), memory.size).pause == pause else None
    except FileNotFoundError:
        at_home = believed or place.home == VOLATILE or (place.home and place.home == _identity(place.path.parent))
        return False if at_home else None
    except (OSError, InvalidHandover):
        return None


def _identity(folder: Path) -> str:
    """Return what tells a folder from another one, also after a restart; empty where that cannot be known."""
    try:
        return f"{os.statvfs(folder).f_fsid:x}:{folder.stat().st_ino}"
    except OSError:
        return ""
