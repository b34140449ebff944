"""The host's IO page table of one domain: what a device may reach, and which leaves it has written.

::

    device  --iova-->  IoPageTable  --(memory, offset)-->  RAM's memfd
                       |  mappings: iova -> memory, permissions
                       '- dirty bits, one a leaf, set in the same step as the write they stand for

Devices write RAM through `write` only. The caller is one thread, so a query sits between two writes: a write is
either seen by it with its bit, or comes later with a bit of its own, which a later query reports. Unmapping takes
the bits away with the entries, which is why a query must come first (semantics 3.4).
"""

from collections.abc import Iterator
from typing import Final

from vfio_host.errors import DmaFault
from vfio_host.interface.answers import Bitmap
from vfio_host.interface.bitmaps import BitmapBuilder
from vfio_host.interface.numbers import LEAF_SIZES, PAGE_SIZE, U64_MAX
from vfio_host.mappings import Mapping, Mappings
from vfio_host.memory_file import MemoryFile


class IoPageTable:
    """Mappings, translation and dirty bits of one domain.

    `leaf_size` is the largest leaf this table makes, `page_size` the smallest: the host's. `generation` grows with
    every change of mappings; `flushes` counts the IOTLB flushes of queries, for whoever makes them.
    """

    def __init__(self, leaf_size: int = PAGE_SIZE, page_size: int = PAGE_SIZE) -> None:
        sizes = {page_size, max(leaf_size, page_size)} | {s for s in LEAF_SIZES[page_size] if s <= leaf_size}
        self._leaf_sizes: Final = tuple(sorted(sizes, reverse=True))
        self._mappings: Final = Mappings()
        self._recent: Mapping | None = None
        self.tracking = False
        self.generation = 0
        self.flushes = 0

    def __len__(self) -> int:
        return len(self._mappings)

    def map(
        self,
        iova: int,
        length: int,
        memory: MemoryFile,
        offset: int,
        *,
        readable: bool = True,
        writable: bool = True,
        owner: int = 0,
        by_file: bool = False,
    ) -> None:
        """Add a mapping; its pages are clean. The caller has checked alignment and that the range is free."""
        end, sizes = iova + length, self._leaf_sizes
        self._mappings.add(Mapping(iova, end, memory, offset, readable, writable, sizes, owner, by_file))
        self.generation += 1

    def unmap(self, iova: int, length: int) -> int:
        """Take away the mappings that lie wholly in a range, with their dirty bits; return how many bytes they had."""
        gone = self._mappings.remove_within(iova, iova + length)
        self._recent = None
        self.generation += 1
        return gone

    def cut_by(self, iova: int, length: int) -> Mapping | None:
        """Return the lowest mapping that lies partly in a range and partly outside, if there is one."""
        return self._mappings.cut_by(iova, iova + length)

    def overlapping(self, iova: int, length: int) -> Iterator[Mapping]:
        """Yield the mappings that share a byte with a range, ascending."""
        return self._mappings.overlapping(iova, iova + length)

    def occupied(self, iova: int, length: int) -> bool:
        """Tell whether any mapping shares a byte with a range."""
        return self._mappings.occupied(iova, iova + length)

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
        """Begin or end the setting of dirty bits; beginning clears what is there, also when it has begun already.

        The kernel clears at every enable, so as not to inherit bits (iopt_set_dirty_tracking).
        """
        if enable:
            for mapping in self.overlapping(0, U64_MAX + 1):
                if mapping.dirty is not None:
                    mapping.dirty.clear()
        self.tracking = enable

    def mark_all(self) -> None:
        """Set every bit: something wrote that this table did not see."""
        for mapping in self.overlapping(0, U64_MAX + 1):
            mapping.mark(0, mapping.length)

    def read_dirty(self, iova: int, length: int, page_size: int = PAGE_SIZE, *, walked: int | None = None) -> Bitmap:
        """Return the bitmap of a range; IOVA and length are multiples of the page size. Holes give zeros.

        With `walked`, only as many bytes are looked at, and the rest is zeros.
        """
        builder = BitmapBuilder(-(-length // page_size))
        length = length if walked is None else walked
        shift, end = page_size.bit_length() - 1, iova + length
        for mapping in self.overlapping(iova, length):
            base = mapping.iova
            if mapping.dirty is not None:
                mapping.dirty.collect(
                    builder,
                    start=max(iova - base, 0),
                    end=min(end, mapping.end) - base,
                    origin=iova - base,
                    page_shift=shift,
                )
        return builder.built()

    def clear_dirty(self, iova: int, length: int) -> None:
        """Reset the bits that a query of a range reports."""
        for mapping in self.overlapping(iova, length):
            if mapping.dirty is not None:
                mapping.dirty.reset(max(iova - mapping.iova, 0), min(iova + length, mapping.end) - mapping.iova)

    def contiguous(self, iova: int, length: int) -> int:
        """Return how many bytes from an IOVA on are mapped before the first hole, up to a length."""
        place = iova
        for mapping in self.overlapping(iova, length):
            if mapping.iova > place:
                break
            place = mapping.end
        return min(place - iova, length)

    def _store(self, mapping: Mapping, inside: int, data: bytes | memoryview) -> None:
        start = mapping.offset + inside
        mapping.memory.view[start : start + len(data)] = data
        if self.tracking and len(data):
            mapping.mark(inside, len(data))

    def _find(self, iova: int, *, write: bool) -> Mapping:
        mapping = self._recent
        if mapping is None or not mapping.iova <= iova < mapping.end:
            mapping = self._mappings.at(iova)
            if mapping is None:
                raise DmaFault(iova, write=write)
            self._recent = mapping
        if not (mapping.writable if write else mapping.readable):
            raise DmaFault(iova, write=write)
        return mapping
