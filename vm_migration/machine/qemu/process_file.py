"""Which process a machine's QEMU is, from the moment it was started, for whoever has to end it."""

from pathlib import Path
from typing import Final

import msgspec

from vm_migration.machine.run_directory import ProcessId

PROCESS_FILE: Final = "qemu.json"
SHIM: Final = "vm_migration.machine.qemu.shim"
"""The module of the process that stands beside a QEMU."""


def note_started(folder: Path, process: ProcessId) -> None:
    """Write down which process was started for a folder."""
    (folder / PROCESS_FILE).write_bytes(msgspec.json.encode(process))


def started_qemu(folder: Path) -> ProcessId | None:
    """Return the QEMU that was started for a folder; None where none was, or where it was adopted."""
    try:
        return msgspec.json.decode((folder / PROCESS_FILE).read_bytes(), type=ProcessId)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
