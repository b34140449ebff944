"""Which RAM a range of a device's addresses stands for.

A mapping is contiguous in both, so page i of a query stands for page i of what it maps (semantics 3.6). What it maps is
named by guest-physical address, and translated to RAM explicitly: the two differ above the PCI hole. A wide unmap of
the time before patch 6 names everything from address 0 on; of that, what is RAM counts, and the rest is nothing.
"""

import msgspec

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SIZE


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A run of RAM within a range; `at` is how far into the range it begins, `offset` where it lies in RAM. Bytes."""

    at: int
    offset: int
    size: int


def pieces_of(memory: GuestMemory, address: int, size: int) -> tuple[Piece, ...]:
    """Return the RAM in a range of guest-physical addresses, ascending; none where there is none."""
    first = address // PAGE_SIZE * PAGE_SIZE
    found = []
    for section in memory.sections:
        low, high = max(first, section.base), min(first + size, section.base + section.size)
        if low < high:
            found.append(Piece(low - first, low - section.base + section.offset, high - low))
    return tuple(found)
