"""Memory that devices reach: files (memfd) mapped into the host process, and where the caller has them mapped.

A file is mapped once however often it is named, because IOAS_MAP_FILE brings its descriptor with every call.
"""

import errno
import mmap
import os
import weakref
from bisect import bisect_right
from typing import Final

import numpy as np

from vfio_host.errors import CallRefused

_PROCESSES: Final = 4


class MemoryFile:
    """A whole file, mapped shared; it lives as long as a mapping or a registration names it."""

    __slots__ = ("__weakref__", "address", "size", "view")

    def __init__(self, descriptor: int, size: int) -> None:
        self.size: Final = size
        self.view: Final = memoryview(mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))
        self.address: Final = int(np.frombuffer(self.view, dtype=np.uint8).ctypes.data)


class MemoryFiles:
    """The files that are mapped now, by what they are and how long."""

    def __init__(self) -> None:
        self._mapped: weakref.WeakValueDictionary[tuple[int, int, int], MemoryFile] = weakref.WeakValueDictionary()

    def of(self, descriptor: int) -> MemoryFile:
        """Return the mapping of a descriptor's file; the descriptor stays the caller's.

        Raises:
            CallRefused: EINVAL for what cannot be mapped.
        """
        try:
            status = os.fstat(descriptor)
            key = (status.st_dev, status.st_ino, status.st_size)
            found = self._mapped.get(key)
            if found is None:
                found = MemoryFile(descriptor, status.st_size)
                self._mapped[key] = found
        except (OSError, ValueError) as error:
            raise CallRefused(errno.EINVAL, f"Descriptor is no memory that can be mapped: {error}") from error
        return found


class UserAddresses:
    """What lies at user addresses of the machine process; it stands for the kernel's knowledge of the caller's mm.

    Each process has a table of its own; a later registration replaces what it overlaps there. A machine has one
    process, and two while it is updated: of more than a few, those that registered first are forgotten.
    """

    def __init__(self) -> None:
        self._tables: dict[int, list[tuple[int, int, MemoryFile]]] = {}

    def register(self, vaddr: int, length: int, memory: MemoryFile, process: int = 0) -> None:
        """Tell that a file's first bytes are mapped at an address of a process.

        Raises:
            CallRefused: EINVAL when the file is shorter than that, or the range is empty or wraps.
        """
        if length <= 0 or vaddr < 0 or vaddr + length > 1 << 64 or length > memory.size:
            raise CallRefused(errno.EINVAL, f"File of {memory.size} bytes cannot give {length} at 0x{vaddr:x}")
        regions = self._tables.pop(process, [])
        kept = [r for r in regions if r[0] + r[1] <= vaddr or vaddr + length <= r[0]]
        self._tables[process] = sorted([*kept, (vaddr, length, memory)], key=_start)
        if len(self._tables) > _PROCESSES:
            del self._tables[next(iter(self._tables))]

    def find(self, vaddr: int, length: int, process: int = 0) -> tuple[MemoryFile, int]:
        """Return the memory at a run of a process's addresses, and the offset in its file.

        Raises:
            CallRefused: EFAULT when not all of it is known.
        """
        regions = self._tables.get(process, [])
        place = bisect_right(regions, vaddr, key=_start) - 1
        if place >= 0:
            start, size, memory = regions[place]
            if vaddr + length <= start + size:
                return memory, vaddr - start
        raise CallRefused(errno.EFAULT, f"No memory is known at user address 0x{vaddr:x}, {length} bytes")


def _start(region: tuple[int, int, MemoryFile]) -> int:
    return region[0]
