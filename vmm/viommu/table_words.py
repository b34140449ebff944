"""Fast reading of 64-bit entries out of the guest's RAM, for walks."""

from typing import Final

import numpy as np
import numpy.typing as npt

from vmm.memory.guest_physical import GuestMemory

_Q: Final = "Q"


class TableWords:
    """RAM as words by guest-physical address. Below `low_end` a word's place is its address over 8.

    A walk reads `words[address >> 3]` for an address below `low_end` and asks `above` for every other. Addresses are
    aligned to 8 bytes, as the address bits of every entry are.
    """

    def __init__(self, memory: GuestMemory) -> None:
        low, *rest = memory.sections
        self.low_end: Final = low.base + low.size
        self.words: Final = memory.block.data.cast("B").cast(_Q)
        self._array: Final = memory.block.words.reshape(-1)
        self._rest: Final = tuple((section.base, section.size, section.offset) for section in rest)

    def above(self, address: int) -> int | None:
        """Return the word at an address at or beyond `low_end`; None where there is no RAM."""
        for base, size, offset in self._rest:
            if base <= address < base + size:
                return self.words[address - base + offset >> 3]
        return None

    def read(self, address: int) -> int | None:
        """Return the word at an address; None where there is no RAM."""
        return self.words[address >> 3] if address < self.low_end else self.above(address)

    def gather(self, addresses: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_] | None]:
        """Return the words at many addresses, and where there was no RAM; None instead of an array of no misses."""
        if addresses.size == 0 or int(addresses.max()) < self.low_end:
            return self._array[(addresses >> np.uint64(3)).view(np.int64)], None
        places = (addresses >> np.uint64(3)).view(np.int64)
        missing = addresses >= np.uint64(self.low_end)
        for base, size, offset in self._rest:
            inside = (addresses >= np.uint64(base)) & (addresses < np.uint64(base + size))
            places[inside] += (offset - base) // 8
            missing &= ~inside
        places[missing] = 0
        return self._array[places], missing
