"""The CPU's access to guest-physical memory.

An address is translated to a place in the RAM block explicitly: the two differ above the PCI hole (semantics 3.6).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from vmm.memory.dirty_log import DirtyLog
from vmm.memory.quantities import PAGE_SHIFT, PAGE_SIZE, GuestPhysicalAddress, RamOffset
from vmm.memory.ram_block import RamBlock
from vmm.memory.sections import sections


class AccessFault(Exception):
    """A guest-physical access met no RAM. Nothing was read or written."""


class GuestMemory:
    """RAM as the machine process reads and writes it: every write marks the CPU's dirty log."""

    def __init__(self, block: RamBlock) -> None:
        self.block: Final = block
        self.log: Final = DirtyLog(block.pages)
        self.sections: Final = sections(block.size)

    def offset_of(self, address: int, length: int = 1) -> RamOffset:
        """Return where a run of guest-physical addresses lies in the block.

        Raises:
            AccessFault: Not all of it is RAM of one section.
        """
        for section in self.sections:
            if section.base <= address and address + length <= section.base + section.size:
                return RamOffset(address - section.base + section.offset)
        raise AccessFault(f"No RAM at guest-physical 0x{address:x}, {length} bytes")

    def address_of(self, offset: int) -> GuestPhysicalAddress:
        """Return the guest-physical address of a place in the block."""
        for section in self.sections:
            if section.offset <= offset < section.offset + section.size:
                return GuestPhysicalAddress(offset - section.offset + section.base)
        raise AccessFault(f"No RAM at offset 0x{offset:x}")

    def read(self, address: int, length: int) -> bytes:
        """Read bytes."""
        start = self.offset_of(address, length)
        return bytes(self.block.data[start : start + length])

    def write(self, address: int, data: bytes) -> None:
        """Write bytes and mark their pages."""
        start = self.offset_of(address, len(data))
        self.block.data[start : start + len(data)] = data
        first = start >> PAGE_SHIFT
        self.log.mark_run(first, ((start + len(data) - 1) >> PAGE_SHIFT) - first + 1)

    def read_u64(self, address: int) -> int:
        """Read one little-endian word, which must be aligned."""
        word = self._word(address)
        return int(self.block.words[word >> 9, word & 511])

    def write_u64(self, address: int, value: int) -> None:
        """Write one little-endian word, which must be aligned, and mark its page."""
        word = self._word(address)
        self.block.words[word >> 9, word & 511] = np.uint64(value)
        self.log.mark_run(word >> 9, 1)

    def words(self, address: int, count: int) -> npt.NDArray[np.uint64]:
        """Return a writable view of aligned words; a writer calls `mark` in the same step."""
        start = self.offset_of(address, count * 8)
        if start & 7:
            raise AccessFault(f"Address 0x{address:x} is not aligned to 8 bytes")
        return self.block.words.reshape(-1)[start >> 3 : (start >> 3) + count]

    def mark(self, address: int, length: int) -> None:
        """Mark the pages of a run that was written through a view."""
        start = self.offset_of(address, length)
        first = start >> PAGE_SHIFT
        self.log.mark_run(first, ((start + length - 1) >> PAGE_SHIFT) - first + 1)

    def _word(self, address: int) -> int:
        if address & 7:
            raise AccessFault(f"Address 0x{address:x} is not aligned to 8 bytes")
        return self.offset_of(address, 8) >> 3


def page_count(size: int) -> int:
    """Return how many pages a size takes."""
    return -(-size // PAGE_SIZE)
