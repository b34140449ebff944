"""Our own machine as a real QEMU: the same guest and the same bytes as the peers', moved by the agents."""

import shutil
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.beside.guest import FIRST_PAGE, PAGE
from benchmarks.beside.link import HOSTS
from benchmarks.beside.qemu_process import PROGRAM
from vm_migration.loopback.site import run_directory
from vm_migration.machine.qemu.shared_ram import open_ram
from vm_migration.machine.run_directory import RunDirectory
from vmm.memory.ram_block import RamBlock

_PIECE: Final = (64 << 20) // PAGE


def offer() -> str:
    """Return the section of a host's configuration without which it runs no QEMU.

    Raises:
        RuntimeError: QEMU is missing.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise RuntimeError(f"{PROGRAM} is missing: apt-get install qemu-system-x86")
    return f'[offer]\nqemu = ["{found}"]\n'


def specification(size: int, kernel: Path) -> dict[str, object]:
    """Return the machine, in the peers' own arguments."""
    qemu = {"machine": "q35", "arguments": ["-accel", "tcg", "-kernel", str(kernel)]}
    return {"name": "bench", "kind": "qemu", "memory": {"size": size}, "qemu": qemu}


def fill(folder: Path, machine: str, content: Path) -> None:
    """Put bytes into the memory of a machine on the first host, from outside, above what its guest uses itself.

    Raises:
        RuntimeError: It is not there.
    """
    instance = RunDirectory(run_directory(folder, HOSTS[0])).of_text(machine).instance()
    if instance is None:
        raise RuntimeError(f"Machine {machine} is not on {HOSTS[0]}")
    wanted = np.memmap(content, np.uint64, "r").reshape(-1, PAGE // 8)
    ram = RamBlock.adopt(open_ram(instance.vmm.pid, wanted.nbytes))
    try:
        for first in range(FIRST_PAGE, len(wanted), _PIECE):
            ram.words[first : first + _PIECE] = wanted[first : first + _PIECE]
    finally:
        ram.close()
