"""Machines of real QEMU in the matrix: what they are, and what shows that their guest goes on.

What has to be fetched lies in pytest's cache, since a lane's site is cut off from the world: `fetch` comes first.
"""

from pathlib import Path

from tests.faults.rows import Row
from tests.qemu_guest.build import build, kernel
from tests.qemu_guest.newer import newer_qemu
from tests.qemu_guest.serial import counts, without_gap
from tests.system.attempts import MIB
from tests.system.qemu_machines import PROGRAM, specification
from vmm.assembly.specification import MachineSpecification

LIMIT_MS = 10_000
"""A downtime limit of which three times outlasts what holds a guest here, on hosts with other work."""
LOOK_SECONDS = 0.25
"""Between two looks at a machine: a QEMU is asked a dozen things for each, and its guest waits meanwhile."""
_CACHE = Path(__file__).parents[2] / ".pytest_cache" / "d"
_GUEST, _NEWER = _CACHE / "qemu-guest", _CACHE / "newer-qemu"
NEWER_PROGRAM = str(_NEWER / Path(PROGRAM).name)
PROGRAMS = (PROGRAM, NEWER_PROGRAM)


def fetch() -> None:
    """Have what a QEMU's row needs; the first time it is downloaded."""
    kernel(_GUEST)
    newer_qemu(_NEWER)


def serial_of(folder: Path, name: str) -> Path:
    """Return where the guest of a machine prints, on whichever host it is."""
    return folder / f"{name}.serial"


def qemu_machine(folder: Path, name: str, row: Row) -> MachineSpecification:
    """Return a machine whose guest writes to its memory and counts."""
    guest = build(_GUEST, folder, rate=MIB, working_set=8 * MIB)
    binary = NEWER_PROGRAM if row.newer else PROGRAM
    return specification(guest, serial_of(folder, name), binary=binary, name=name)


def counted(folder: Path, name: str) -> int:
    """Return how far a guest has counted.

    Raises:
        AssertionError: A page of it did not hold what it had written.
    """
    return max(counts(serial_of(folder, name)), default=0)


def undone_counts(folder: Path, name: str) -> tuple[str, ...]:
    """Return what a guest's counts show that must not be, in words."""
    return () if without_gap(counts(serial_of(folder, name))) else ("its guest's counts have a gap or a repeat",)
