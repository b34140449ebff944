"""What the host kernel's calls answer with; `calls` says which call answers with which."""

import msgspec


class Opened(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A new object: its id among this host's objects, and its descriptor, by index among those of the answer."""

    id: int
    descriptor: int


class IovaRanges(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Allowed IOVAs, inclusive."""

    ranges: tuple[tuple[int, int], ...]
    alignment: int


class Type1Info(msgspec.Struct, frozen=True, tag=True, gc=False):
    """VFIO_IOMMU_GET_INFO with its capabilities."""

    iova_pgsizes: int
    migration_pgsize_bitmap: int
    max_dirty_bitmap_size: int
    dma_avail: int
    iova_ranges: tuple[tuple[int, int], ...]
    unmap_all: bool


class Bitmap(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A dirty bitmap of `bits` bits: runs that are all ones, and stretches of little-endian bytes; all else is zeros.

    A kernel writes the whole bitmap into the caller's memory; here a terabyte that is all dirty is one run.
    """

    bits: int
    runs: tuple[tuple[int, int], ...] = ()
    """(first bit, count), ascending."""
    parts: tuple[tuple[int, bytes], ...] = ()
    """(first byte, bytes), ascending; they may touch bits of runs."""


class Unmapped(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Bytes unmapped, and the dirty bitmap where one was asked for."""

    size: int
    bitmap: Bitmap | None = None


class PrecopyInfo(msgspec.Struct, frozen=True, tag=True, gc=False):
    """struct vfio_precopy_info."""

    initial_bytes: int
    dirty_bytes: int


class Number(msgspec.Struct, frozen=True, tag=True, gc=False):
    """An id, a count, a register, a state."""

    value: int


class Data(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A bitmap or device state. It is not copied out of its message: it is a view."""

    data: memoryview


class Done(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Zero, and nothing else."""


class Failed(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A negative return: the errno, positive."""

    errno: int


Answer = Opened | IovaRanges | Type1Info | Unmapped | Bitmap | PrecopyInfo | Number | Data | Done | Failed
