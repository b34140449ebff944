"""Which process a machine's QEMU is, from the moment it was started, for whoever has to end it.

Its command line names no folder; but it works in the machine's, and is told the machine's UUID.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from vm_migration.machine.run_directory import MachineDirectory, ProcessId, identify

PROCESS_FILE: Final = "qemu.json"
SHIM: Final = "vm_migration.machine.qemu.shim"
"""The module of the process that stands beside a QEMU."""


def note_started(folder: Path, process: ProcessId) -> None:
    """Write down which process was started for a folder; all or nothing."""
    temporary = folder / (PROCESS_FILE + ".new")
    temporary.write_bytes(msgspec.json.encode(process))
    temporary.rename(folder / PROCESS_FILE)


def started_qemu(folder: Path) -> ProcessId | None:
    """Return the QEMU that was started for a folder; None where none was, or where it was adopted."""
    try:
        return msgspec.json.decode((folder / PROCESS_FILE).read_bytes(), type=ProcessId)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def left_in(directory: MachineDirectory) -> frozenset[ProcessId]:
    """Return every QEMU that was started for a machine's folder, also one of which nothing was written down yet."""
    noted = started_qemu(directory.path)
    found = {process for process, machine in working_below(directory.path.parent) if machine == directory.machine}
    return frozenset(found if noted is None else {noted, *found})


def working_below(machines: Path) -> Iterator[tuple[ProcessId, UUID]]:
    """Yield the living QEMUs that work in a machine's folder below here, or did before it was removed."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            place = Path(str((entry / "cwd").readlink()).removesuffix(" (deleted)"))
            told = place.parent == machines and place.name in (entry / "cmdline").read_text(errors="replace").split(
                "\0"
            )
            if told:  # somebody's shell may work there too
                yield identify(int(entry.name)), UUID(place.name)
        except (OSError, ValueError):  # it has ended, or is another user's; or it is no machine's folder
            continue
