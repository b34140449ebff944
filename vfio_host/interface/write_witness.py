"""The kernel's own record of which pages of a mapping this process wrote.

userfaultfd in asynchronous write-protect mode, with PAGEMAP_SCAN, tells the pages that were written through *this
process's* mapping since they were last armed. It knows nothing of any dirty log, so it can testify against one:
verification reuses a page's digest only where no writer's witness has seen the page since (Linux 6.7,
Documentation/admin-guide/mm/pagemap.rst and userfaultfd.rst).

Every process that writes RAM keeps a witness of its own mapping: write protection lives in the page tables of one
process. A scan re-arms what it reports in the same operation, so no write falls between the two.
"""

import contextlib
import ctypes
import fcntl
import os
import struct
from typing import Final

import numpy as np
import numpy.typing as npt

_PAGE: Final = 4096
_SYS_USERFAULTFD: Final = {"x86_64": 323, "aarch64": 282}
_UFFD_USER_MODE_ONLY: Final = 1
_UFFDIO_API: Final = 0xC018AA3F
_UFFDIO_REGISTER: Final = 0xC020AA00
_UFFD_API: Final = 0xAA
_FEATURES: Final = (1 << 12) | (1 << 13) | (1 << 15)
"""WP_HUGETLBFS_SHMEM, WP_UNPOPULATED, WP_ASYNC."""
_REGISTER_MODE_WP: Final = 2
_PAGEMAP_SCAN: Final = 0xC0606610
_SCAN_WP_MATCHING: Final = 1
_PAGE_IS_WRITTEN: Final = 1 << 1
_PAGE_IS_HUGE: Final = 1 << 6
_MADV_DONTNEED: Final = 4
_MADV_NOHUGEPAGE: Final = 15
_REGIONS: Final = 65536
_AREA_PAGES: Final = 1 << 20
"""Pages that are noted in bytes at a time, and kept in bits: a byte for each page of a terabyte would take 256 MiB."""
_libc: Final = ctypes.CDLL(None, use_errno=True)


class WitnessUnavailable(Exception):
    """The kernel, or this process's privileges, offer no asynchronous write protection."""


class WriteWitness:
    """Watches one mapping of this process.

    Raises:
        WitnessUnavailable: Nothing was registered; dirty tracking and verification do without.
    """

    def __init__(self, address: int, size: int) -> None:
        self._address: Final = address
        self._size: Final = size
        self._pages: Final = size // _PAGE
        self._regions: Final[npt.NDArray[np.uint64]] = np.zeros((_REGIONS, 3), dtype=np.uint64)
        self._userfaultfd = _register(address, size)
        try:
            self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            self._split_huge_pages()
            self.report()
        except OSError as error:
            self.close()
            raise WitnessUnavailable(f"Kernel cannot scan for written pages: {error}") from error

    def report(self) -> bytes:
        """Return the pages written since the last report, as a little-endian bitmap, and arm them again.

        The first report, at construction, arms everything.
        """
        bits = np.zeros(-(-self._pages // 64) * 8, dtype=np.uint8)
        for first in range(0, self._pages, _AREA_PAGES):
            written = self._written(first, min(_AREA_PAGES, self._pages - first))
            bits[first // 8 : first // 8 + len(written)] = written
        return bits.tobytes()

    def close(self) -> None:
        """Stop watching."""
        for name in ("_userfaultfd", "_pagemap"):
            with contextlib.suppress(OSError, AttributeError):
                os.close(getattr(self, name))

    def _written(self, first: int, count: int) -> npt.NDArray[np.uint8]:
        """Return the bits of some pages as far as any was written: none where none was."""
        base = self._address + first * _PAGE
        position, end = base, base + count * _PAGE
        flags = np.zeros(count, dtype=np.uint8)
        found = 0
        while position < end:
            regions, position = self._scan(position, end, _PAGE_IS_WRITTEN, _SCAN_WP_MATCHING)
            for start, stop in ((self._regions[:regions, :2] - np.uint64(base)) // np.uint64(_PAGE)).tolist():
                flags[start:stop] = 1
            found += regions
        return np.packbits(flags[: count if found else 0], bitorder="little")

    def _split_huge_pages(self) -> None:
        """Map what is mapped as huge pages page by page from now on: a write would be told of all 512 of them.

        What the pages hold is the file's, and is found again at the next touch. The mapping is advised as a whole:
        parts with advice of their own are mappings of their own, of which a process may have few (vm.max_map_count).

        Raises:
            OSError: The kernel refused.
        """
        with contextlib.suppress(OSError):  # a kernel without huge pages
            _advise(self._address, self._size, _MADV_NOHUGEPAGE)
        position, end = self._address, self._address + self._size
        while position < end:
            count, position = self._scan(position, end, _PAGE_IS_HUGE)
            for start, stop in self._regions[:count, :2].tolist():
                _advise(start, stop - start, _MADV_DONTNEED)

    def _scan(self, start: int, end: int, category: int, flags: int = 0) -> tuple[int, int]:
        vector = (self._regions.ctypes.data, _REGIONS)
        wanted = (0, category, 0, category)
        argument = bytearray(struct.pack("<12Q", 96, flags, start, end, 0, *vector, 0, *wanted))
        count = fcntl.ioctl(self._pagemap, _PAGEMAP_SCAN, argument)
        (walked,) = struct.unpack_from("<Q", argument, 32)
        # A scan that filled less than the vector has seen the whole range, whatever it says of where it stopped.
        return count, end if count < _REGIONS else walked


def witness_available(address: int) -> bool:
    """Tell whether this process may watch a mapping, by watching its first page for a moment."""
    try:
        WriteWitness(address, _PAGE).close()
    except WitnessUnavailable:
        return False
    return True


def _advise(address: int, size: int, advice: int) -> None:
    if _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), advice):
        raise OSError(ctypes.get_errno(), "Huge pages cannot be split")


def _register(address: int, size: int) -> int:
    number = _SYS_USERFAULTFD.get(os.uname().machine)
    if number is None:
        raise WitnessUnavailable(f"No known userfaultfd call on {os.uname().machine}")
    descriptor = -1
    for flags in (os.O_CLOEXEC | os.O_NONBLOCK, os.O_CLOEXEC | os.O_NONBLOCK | _UFFD_USER_MODE_ONLY):
        descriptor = _libc.syscall(number, flags)
        if descriptor >= 0:
            break
    if descriptor < 0:
        raise WitnessUnavailable(f"Kernel refused userfaultfd: {os.strerror(ctypes.get_errno())}")
    try:
        fcntl.ioctl(descriptor, _UFFDIO_API, bytearray(struct.pack("<QQQ", _UFFD_API, _FEATURES, 0)))
        fcntl.ioctl(descriptor, _UFFDIO_REGISTER, bytearray(struct.pack("<QQQQ", address, size, _REGISTER_MODE_WP, 0)))
    except OSError as error:
        os.close(descriptor)
        raise WitnessUnavailable(f"Kernel refused asynchronous write protection: {error}") from error
    return int(descriptor)
