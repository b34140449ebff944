"""The host's IO page table of one domain: what a device may reach, and which leaves it has written.

::

    device  --iova-->  IoPageTable  --(memory, offset)-->  RAM's memfd
                       |  mappings: iova -> memory, permissions
                       '- dirty bits, one a leaf, set in the same step as the write they stand for

Devices write RAM through `write` only. The caller is one thread, so a query sits between two writes: a write is
either seen by it with its bit, or comes later with a bit of its own, which a later query reports. A query that
clears counts one IOTLB flush, one that does not clear counts none (semantics 3.4). Unmapping takes the bits away
with the entries, which is why a query must come first.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

from vfio_host.dirty_bits import DirtyBits, bitmap_bytes
from vfio_host.errors import DmaFault
from vfio_host.interface.numbers import PAGE_SIZE
from vfio_host.memory_file import MemoryFile

_PAGE_SHIFT: Final = PAGE_SIZE.bit_length() - 1


class Mapping:
    """A run of IOVAs that lies on a run of memory."""

    __slots__ = ("dirty", "end", "iova", "length", "memory", "offset", "readable", "writable")

    def __init__(
        self,
        iova: int,
        length: int,
        memory: MemoryFile,
        offset: int,
        *,
        readable: bool,
        writable: bool,
        leaf_shift: int,
    ) -> None:
        self.iova: Final = iova
        self.length: Final = length
        self.end: Final = iova + length
        self.memory: Final = memory
        self.offset: Final = offset
        self.readable: Final = readable
        self.writable: Final = writable
        self.dirty: Final = DirtyBits(leaf_shift)


class IoPageTable:
    """Mappings, translation and dirty bits of one domain.

    `leaf_size` is the largest leaf this table makes; a mapping whose IOVA and length are not multiples of it has
    4 KiB leaves. `generation` grows with every change of mappings, `flushes` with every IOTLB flush.
    """

    def __init__(self, leaf_size: int = PAGE_SIZE) -> None:
        self._leaf_shift: Final = leaf_size.bit_length() - 1
        self._starts: list[int] = []
        self._mappings: list[Mapping] = []
        self._recent: Mapping | None = None
        self.tracking = False
        self.generation = 0
        self.flushes = 0

    def __len__(self) -> int:
        return len(self._mappings)

    def map(
        self, iova: int, length: int, memory: MemoryFile, offset: int, *, readable: bool = True, writable: bool = True
    ) -> None:
        """Add a mapping; its pages are clean. The caller has checked alignment and that the range is free."""
        shift = self._leaf_shift if (iova | length) & ((1 << self._leaf_shift) - 1) == 0 else _PAGE_SHIFT
        place = bisect_left(self._starts, iova)
        self._starts.insert(place, iova)
        new = Mapping(iova, length, memory, offset, readable=readable, writable=writable, leaf_shift=shift)
        self._mappings.insert(place, new)
        self.generation += 1

    def unmap(self, iova: int, length: int) -> int:
        """Take away the mappings that lie wholly in a range, with their dirty bits; return how many bytes they had."""
        low, high = bisect_left(self._starts, iova), bisect_left(self._starts, iova + length)
        if low < high and self._mappings[high - 1].end > iova + length:
            high -= 1
        gone = sum(mapping.length for mapping in self._mappings[low:high])
        del self._starts[low:high]
        del self._mappings[low:high]
        self._recent = None
        self.generation += 1
        return gone

    def overlapping(self, iova: int, length: int) -> Iterator[Mapping]:
        """Yield the mappings that share a byte with a range, ascending."""
        place = bisect_right(self._starts, iova) - 1
        if place < 0 or self._mappings[place].end <= iova:
            place += 1
        while place < len(self._mappings) and self._mappings[place].iova < iova + length:
            yield self._mappings[place]
            place += 1

    def translate(self, iova: int, length: int, *, write: bool) -> list[tuple[Mapping, int, int]]:
        """Return the pieces (mapping, offset within it, bytes) that a run of IOVAs lies on.

        Raises:
            DmaFault: The first IOVA that is not mapped with the permission needed.
        """
        pieces = []
        while length > 0:
            mapping = self._find(iova, write=write)
            count = min(length, mapping.end - iova)
            pieces.append((mapping, iova - mapping.iova, count))
            iova += count
            length -= count
        return pieces

    def read(self, iova: int, length: int) -> bytes:
        """Return what a device reads.

        Raises:
            DmaFault: Not all of it is readable.
        """
        mapping = self._find(iova, write=False)
        if iova + length <= mapping.end:
            start = mapping.offset + iova - mapping.iova
            return bytes(mapping.memory.view[start : start + length])
        parts = []
        for piece, inside, count in self.translate(iova, length, write=False):
            start = piece.offset + inside
            parts.append(piece.memory.view[start : start + count])
        return b"".join(parts)

    def write(self, iova: int, data: bytes | memoryview) -> None:
        """Write a device's data into memory and, while tracking, set the bits of the leaves it touches.

        Raises:
            DmaFault: Not all of it is writable; nothing was written.
        """
        length = len(data)
        mapping = self._find(iova, write=True)
        if iova + length <= mapping.end:
            self._store(mapping, iova - mapping.iova, data)
            return
        view, done = memoryview(data), 0
        for piece, inside, count in self.translate(iova, length, write=True):
            self._store(piece, inside, view[done : done + count])
            done += count

    def set_tracking(self, *, enable: bool) -> None:
        """Begin or end the setting of dirty bits; beginning clears stale ones (semantics 3.4)."""
        if enable and not self.tracking:
            for mapping in self._mappings:
                mapping.dirty.clear()
        self.tracking = enable

    def read_dirty(self, iova: int, length: int, page_size: int = PAGE_SIZE, *, clear: bool) -> bytes:
        """Return the bitmap of a range, and reset the bits when `clear`, which flushes the IOTLB once.

        IOVA and length are multiples of the page size. Holes give zeros.

        Raises:
            MemoryError: The bitmap is larger than this host can make.
        """
        size = bitmap_bytes(-(-length // page_size))
        bitmap = bytearray()
        for mapping in self.overlapping(iova, length):
            if not bitmap:
                bitmap = bytearray(size)
            mapping.dirty.collect(
                bitmap,
                start=max(iova, mapping.iova) - mapping.iova,
                end=min(iova + length, mapping.end) - mapping.iova,
                origin=iova - mapping.iova,
                page_shift=page_size.bit_length() - 1,
                clear=clear,
            )
        if clear:
            self.flushes += 1
        return bytes(bitmap) if bitmap else bytes(size)

    def _store(self, mapping: Mapping, inside: int, data: bytes | memoryview) -> None:
        start = mapping.offset + inside
        mapping.memory.view[start : start + len(data)] = data
        if self.tracking and len(data):
            mapping.dirty.mark(inside, len(data))

    def _find(self, iova: int, *, write: bool) -> Mapping:
        mapping = self._recent
        if mapping is None or not mapping.iova <= iova < mapping.end:
            place = bisect_right(self._starts, iova) - 1
            if place < 0 or self._mappings[place].end <= iova:
                raise DmaFault(iova, write=write)
            mapping = self._recent = self._mappings[place]
        if not (mapping.writable if write else mapping.readable):
            raise DmaFault(iova, write=write)
        return mapping
