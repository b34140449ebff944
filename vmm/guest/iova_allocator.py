"""Where in a domain's IOVA space a buffer is mapped.

Blocks are powers of two of pages, aligned to their size, handed out from the top down: first below the interrupt
hole, as a kernel that prefers 32-bit addresses does, then below the end of the space. Freed blocks are used again
before new space is. Space is therefore bounded by twice the largest use that each size ever had.
"""

from typing import Final

import msgspec

from vmm.guest.dma import MapFailed
from vmm.memory.quantities import PAGE_SHIFT, Iova

_LOWEST: Final = 0x10_0000
_HOLE: Final = 0xFEE0_0000
_HIGH: Final = 0x1_0000_0000


class AllocatorState(msgspec.Struct, frozen=True, array_like=True):
    """What moves: the next free address of each window, and the freed blocks of each order, latest last."""

    tops: tuple[int, int]
    free: tuple[tuple[int, tuple[int, ...]], ...]


class IovaAllocator:
    """The free addresses of one domain."""

    def __init__(self, aw_bits: int) -> None:
        self._tops = [_HOLE, 1 << aw_bits]
        self._free: dict[int, list[int]] = {}

    def allocate(self, length: int) -> Iova:
        """Return the start of a block that holds so many bytes.

        Raises:
            MapFailed: The space is used up.
        """
        order = block_order(length)
        freed = self._free.get(order)
        if freed:
            return Iova(freed.pop())
        size = 1 << order
        for window, bottom in enumerate((_LOWEST, _HIGH)):
            start = self._tops[window] - size & ~(size - 1)
            if start >= bottom:
                self._tops[window] = start
                return Iova(start)
        raise MapFailed(f"No block of 0x{size:x} bytes is left of the IOVA space")

    def free(self, iova: int, length: int) -> None:
        """Take a block back."""
        self._free.setdefault(block_order(length), []).append(iova)

    def save(self) -> AllocatorState:
        """Return the state that moves."""
        free = tuple((order, tuple(blocks)) for order, blocks in sorted(self._free.items()) if blocks)
        return AllocatorState((self._tops[0], self._tops[1]), free)

    def load(self, state: AllocatorState) -> None:
        """Continue from a state."""
        self._tops = list(state.tops)
        self._free = {order: list(blocks) for order, blocks in state.free}


def block_order(length: int) -> int:
    """Return the power of two of bytes, at least a page, that holds a length."""
    return max(PAGE_SHIFT, (length - 1).bit_length())
