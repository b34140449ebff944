"""Dirty bits of the leaves of one mapping, and what a query makes of them.

A bit lives in the leaf entry, so it stands for the whole leaf whatever page size a query asks in (semantics 3.4). An
IOMMU maps a run with the largest leaves that its addresses allow: a mapping that is not aligned to a large leaf has
small ones at its ends.

::

    mapping  |4K 4K 4K|      2M      |      2M      |4K 4K|      one LeafRun for each size
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from vfio_host.interface.bitmaps import BitmapBuilder
from vfio_host.sparse_bits import SparseBits, runs_of


@dataclass(slots=True)
class LeafRun:
    """Leaves of one size, and which of them are dirty; places are bytes from the mapping's first."""

    start: int
    end: int
    shift: int
    written: SparseBits = field(default_factory=SparseBits)


def leaf_runs(iova: int, offset: int, length: int, sizes: Sequence[int]) -> tuple[LeafRun, ...]:
    """Return the leaves that map a run of IOVAs on a run of memory.

    `sizes` are the IOMMU's, largest first. A leaf of a size is made where the IOVA and the memory are both aligned to
    it. A file's offset stands for the physical address: memory is as contiguous as its file, as with huge pages.
    """
    if len(sizes) == 1 or length < sizes[-2]:
        return (LeafRun(0, length, sizes[-1].bit_length() - 1),)
    runs: list[LeafRun] = []
    _fill(runs, iova, offset, (0, length), sizes)
    return tuple(runs)


def _fill(runs: list[LeafRun], iova: int, offset: int, bounds: tuple[int, int], sizes: Sequence[int]) -> None:
    """Add the leaves of [start, end): the largest size in the middle, the smaller ones before and after it."""
    start, end = bounds
    if start >= end:
        return
    size = sizes[0]
    first = start + -(iova + start) % size
    last = end - (iova + end) % size
    if len(sizes) == 1:
        runs.append(LeafRun(start, end, size.bit_length() - 1))
    elif (iova - offset) % size or first >= last:
        _fill(runs, iova, offset, bounds, sizes[1:])
    else:
        _fill(runs, iova, offset, (start, first), sizes[1:])
        runs.append(LeafRun(first, last, size.bit_length() - 1))
        _fill(runs, iova, offset, (last, end), sizes[1:])


class DirtyBits:
    """The bits of one mapping's leaves."""

    __slots__ = ("_runs",)

    def __init__(self, runs: tuple[LeafRun, ...]) -> None:
        self._runs: Final = runs

    def mark(self, first: int, length: int) -> None:
        """Set the bits of the leaves that a run of bytes touches; the run lies within the mapping."""
        end = first + length
        for run in self._runs:
            if first < run.end and run.start < end:
                low = max(first - run.start, 0) >> run.shift
                run.written.mark(low, ((min(end, run.end) - run.start - 1) >> run.shift) - low + 1)

    def clear(self) -> None:
        """Reset every bit."""
        for run in self._runs:
            run.written.clear()

    def collect(self, builder: BitmapBuilder, *, start: int, end: int, origin: int, page_shift: int) -> None:
        """Add the bits of the bytes [start, end) of this mapping to a bitmap.

        `origin` is where the bitmap's page 0 lies, as an offset from this mapping's first byte (it may be negative).
        The drivers of Linux walk from leaf size to leaf size, beginning where they are told to. A query that begins
        within a large leaf is therefore answered as if every leaf began as late as that: what is dirty is reported
        from there on for a whole leaf's length, as far as the bitmap goes (intel_iommu_read_and_clear_dirty).
        """
        for run, place, first, stop in self._visited(start, end):
            offset = place - (first << run.shift) - origin
            for base, bits in run.written.windows(first, stop):
                if run.shift == page_shift:
                    builder.add_bits((base << run.shift) + offset >> page_shift, bits)
                    continue
                for low, count in runs_of(bits):
                    begin = (base + low << run.shift) + offset
                    page = begin >> page_shift
                    last = begin + (count << run.shift) - 1 >> page_shift
                    builder.add_run(page, last - page + 1)

    def reset(self, start: int, end: int) -> None:
        """Reset the bits that `collect` reports for the same bytes: also those of leaves that lie partly outside."""
        for run, _, first, stop in self._visited(start, end):
            run.written.reset(first, stop)

    def _visited(self, start: int, end: int) -> list[tuple[LeafRun, int, int, int]]:
        """Return which leaves a walk of [start, end) looks at: (run, where it begins, first leaf, end of leaves)."""
        visited, place = [], start
        for run in self._runs:
            if run.start <= place < min(run.end, end):
                first = place - run.start >> run.shift
                count = -(place - min(run.end, end) >> run.shift)
                visited.append((run, place, first, first + count))
                place += count << run.shift
        return visited
