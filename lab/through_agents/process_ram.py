"""RAM of a running machine process, from outside: its memory file, opened through /proc.

The agents do the same by the control socket, which cuts off whoever commanded before; this looks without a word.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vm_migration.machine.run_directory import RunDirectory
from vmm.memory.ram_block import RamBlock

_MEMORY_FILES: Final = ("/memfd:", "/viaduct-ram-")
"""How a machine's RAM is named there: as a memfd, or as a file in huge pages (vmm.memory.huge_pages)."""


class NoRam(Exception):
    """No process of the machine holds its RAM."""


def pid_of(run_directory: Path, machine: str) -> int:
    """Return the process that a machine of a host runs in.

    Raises:
        NoRam: The host has no such machine.
    """
    instance = RunDirectory(run_directory).of_text(machine).instance()
    if instance is None:
        raise NoRam(f"Machine {machine} is not in {run_directory}")
    return instance.vmm.pid


def open_ram(pid: int) -> RamBlock:
    """Map a machine process's RAM, its largest memory file; it outlives the process.

    Raises:
        NoRam: The process is gone, or has no memory file.
    """
    found: list[tuple[int, Path]] = []
    for path in _descriptors(pid):
        with contextlib.suppress(OSError):
            if str(path.readlink()).startswith(_MEMORY_FILES):
                found.append((path.stat().st_size, path))
    if not found:
        raise NoRam(f"Process {pid} holds no RAM")
    return RamBlock.adopt(os.open(max(found)[1], os.O_RDWR | os.O_CLOEXEC))


def _descriptors(pid: int) -> Iterator[Path]:
    try:
        yield from Path(f"/proc/{pid}/fd").iterdir()
    except OSError as error:
        raise NoRam(f"Process {pid} cannot be looked into: {error}") from error
