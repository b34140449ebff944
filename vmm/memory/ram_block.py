"""RAM as one block of shared memory, which other processes map by its descriptor."""

import contextlib
import ctypes
import errno
import mmap
import os
import weakref
from collections.abc import Iterator
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from vmm.memory.huge_pages import huge_file
from vmm.memory.quantities import PAGE_SIZE

_POPULATE_WRITE: Final = 23
_libc: Final = ctypes.CDLL(None, use_errno=True)


class RamBlock:
    """A machine's RAM: a memfd, and this process's mapping of it.

    `words` is the block as 64-bit words in rows of one page, `data` the same as bytes. Whoever writes through either
    must mark its own dirty log in the same step.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        if size % PAGE_SIZE:
            raise ValueError(f"RAM of {size} bytes is not a whole number of pages")
        self.descriptor: Final = descriptor
        self.size: Final = size
        self.pages: Final = size // PAGE_SIZE
        self._map: Final = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.data: Final = memoryview(self._map)
        self.words: Final[npt.NDArray[np.uint64]] = np.frombuffer(self._map, dtype=np.uint64).reshape(-1, 512)
        self.address: Final = int(self.words.ctypes.data)
        self._closing: Final = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def create(cls, name: str, size: int, *, whole: bool = False) -> Self:
        """Make a new block of zeros; one that will be written as a whole has huge pages where the kernel gives them.

        A block of which little is written has not: a page that is touched would take 2 MiB.

        Raises:
            OSError: The kernel gives no such file, or no room for its mapping; nothing is left of it.
        """
        descriptor = huge_file(name, size) if whole else None
        advise = whole and descriptor is None
        if descriptor is None:
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            block = cls(descriptor, size)
        except (OSError, ValueError):
            os.close(descriptor)
            raise
        if advise:
            block._ask_for_huge_pages()
        return block

    @classmethod
    def adopt(cls, descriptor: int) -> Self:
        """Map a block that another process made; the descriptor is owned from here on."""
        return cls(descriptor, os.fstat(descriptor).st_size)

    def close(self) -> None:
        """Close the descriptor, which the block's own end does too; the mapping goes with the last view of it."""
        self._closing()

    def _ask_for_huge_pages(self) -> None:
        """Have what this process touches first come in huge pages where the host lets shared memory ask for them."""
        with contextlib.suppress(OSError):  # a kernel without huge pages
            self._map.madvise(mmap.MADV_HUGEPAGE)

    def populate(self, first_page: int, count: int) -> None:
        """Make a run of pages present and writable without changing what they hold.

        First touch is a fault, of up to 10 us on nested hosts; this moves it to a moment of the caller's choice. The
        interpreter is free meanwhile, so several threads can populate different runs.

        Raises:
            MemoryError: The host has no memory left.
        """
        address = ctypes.c_void_p(self.address + first_page * PAGE_SIZE)
        if _libc.madvise(address, ctypes.c_size_t(count * PAGE_SIZE), _POPULATE_WRITE):
            raise MemoryError(f"Host could not give {count} pages of RAM: {os.strerror(ctypes.get_errno())}")

    def populated_bytes(self) -> int:
        """Return how much of the block holds memory."""
        return os.fstat(self.descriptor).st_blocks * 512

    def extents(self, first_page: int = 0, count: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield runs (first page, count) that hold memory; what lies between them was never touched and is zero.

        Only those of `count` pages from `first_page` on, where that is given.
        """
        position = first_page * PAGE_SIZE
        stop = self.size if count is None else min(self.size, position + count * PAGE_SIZE)
        while position < stop:
            try:
                start = os.lseek(self.descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # a page is taken for zero only where the kernel says so
                    raise
                return
            if start >= stop:
                return
            end = min(os.lseek(self.descriptor, start, os.SEEK_HOLE), stop)
            first = start // PAGE_SIZE
            yield first, -(-end // PAGE_SIZE) - first
            position = end
