"""A device's own log of the IOVAs that it wrote: VFIO_DEVICE_FEATURE_DMA_LOGGING_START, REPORT and STOP.

The log knows no page tables. It holds numbers of pages, so it outlives the mappings that the writes went through, and
unmap-then-query loses nothing (semantics 2.6, 3.5). Only writes inside the ranges of START are logged.

::

    START --ranges--> active --mark, mark--> REPORT: reads and clears a range --> STOP: all of it is forgotten

The checks that the kernel makes for every driver come first and in its order, then what a device cannot do. Where the
semantics are silent, mlx5's driver is followed: a page size that the hardware has not becomes the nearest below that
it has (else its smallest); ranges that add up to more than the log's width are EOPNOTSUPP. Linux's vfio.h lets REPORT
set bits only, so what lies outside of the ranges is reported as zeros: it is not the device that knows it dirty.
"""

import errno
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from vfio_host.errors import CallRefused
from vfio_host.interface.answers import Bitmap
from vfio_host.interface.bitmaps import BitmapBuilder, encoded_room
from vfio_host.interface.numbers import MAX_LOGGING_RANGES, PAGE_SIZE, U64_MAX
from vfio_host.sparse_bits import SparseBits, runs_of


class DmaLog:
    """The log of one device.

    `page_sizes` are those that the hardware can log by, ascending powers of two; `width` is the logarithm of how many
    bytes of IOVA space it can follow at once; `max_ranges` is the kernel's limit, as many as fit into one of its pages.
    """

    def __init__(
        self, *, width: int, page_sizes: Sequence[int] = (PAGE_SIZE,), max_ranges: int = MAX_LOGGING_RANGES
    ) -> None:
        self._width: Final = width
        self._page_sizes: Final = tuple(page_sizes)
        self._max_ranges: Final = max_ranges
        self._ranges: list[tuple[int, int]] = []
        self._starts: list[int] = []
        self._shift = 0
        self._written = SparseBits()

    @property
    def active(self) -> bool:
        """Whether writes are logged: between START and STOP."""
        return bool(self._ranges)

    def start(self, page_size: int, ranges: Sequence[tuple[int, int]]) -> int:
        """Begin an empty log of ranges (iova, length) and return the page size that it has.

        EINVAL for no range, a range that is empty or not of whole pages, an overlap, and while the log runs; E2BIG for
        too many ranges, EOVERFLOW for one that wraps, EOPNOTSUPP for more than the log's width. The log is as it was.
        """
        self._check_ranges(page_size, ranges)
        if self.active:
            raise CallRefused(errno.EINVAL, "DMA logging runs already")
        total = sum(length for _, length in ranges)
        if total > 1 << self._width:
            raise CallRefused(errno.EOPNOTSUPP, f"Log of {self._width} bits cannot follow {total} bytes")
        used = max((size for size in self._page_sizes if size <= page_size), default=self._page_sizes[0])
        self._shift = used.bit_length() - 1
        self._ranges = sorted((iova, iova + length) for iova, length in ranges)
        self._starts = [low for low, _ in self._ranges]
        return used

    def stop(self) -> None:
        """End the log and forget it; nothing happens when it does not run."""
        self._ranges, self._starts = [], []
        self._written.clear()

    def mark(self, iova: int, length: int) -> None:
        """Log a write, as far as it lies in the ranges; nothing happens while the log does not run."""
        end = iova + length
        for low, high in self._ranges[max(bisect_right(self._starts, iova) - 1, 0) :]:
            if low >= end:
                return
            first, last = max(iova, low), min(end, high)
            if first < last:
                page = first >> self._shift
                self._written.mark(page, ((last - 1) >> self._shift) - page + 1)

    def report(self, iova: int, length: int, page_size: int, *, limit: int | None = None) -> Bitmap:
        """Return which pages of a range were written since the last report of them, and clear those.

        Bit i stands for the page at iova + i * page_size, whatever page size the log has: a logged page sets every bit
        that it touches. EINVAL while the log does not run, for no length, and for a page size below 4096 or no power
        of two; EOVERFLOW for a wrap; ENOMEM when the answer takes more than `limit` bytes, and nothing is cleared then.
        """
        if page_size < PAGE_SIZE or page_size & (page_size - 1):
            raise CallRefused(errno.EINVAL, f"Log is not reported by pages of {page_size} bytes")
        if iova < 0 or iova + length > U64_MAX:
            raise CallRefused(errno.EOVERFLOW, f"Report of {length} bytes at 0x{iova:x} passes the end of the space")
        if length <= 0 or not self.active:
            raise CallRefused(errno.EINVAL, "DMA logging does not run, or nothing is asked for")
        first, end = iova >> self._shift, ((iova + length - 1) >> self._shift) + 1
        bitmap = self._bitmap(iova, length, page_size, first, end)
        if limit is not None and encoded_room(bitmap) > limit:
            raise CallRefused(errno.ENOMEM, f"Report of {length} bytes at 0x{iova:x} does not fit its answer")
        self._written.reset(first, end)
        return bitmap

    def _bitmap(self, iova: int, length: int, page_size: int, first: int, end: int) -> Bitmap:
        builder = BitmapBuilder(-(-length // page_size))
        same = page_size == 1 << self._shift and iova % page_size == 0
        for base, bits in self._written.windows(first, end):
            if same:
                builder.add_bits(base - first, bits)
                continue
            for place, count in runs_of(bits):
                low = max(((base + place) << self._shift) - iova, 0) // page_size
                high = (((base + place + count) << self._shift) - iova - 1) // page_size
                builder.add_run(low, high - low + 1)
        return builder.built()

    def _check_ranges(self, page_size: int, ranges: Sequence[tuple[int, int]]) -> None:
        if not ranges:
            raise CallRefused(errno.EINVAL, "DMA logging of no range")
        if len(ranges) > self._max_ranges:
            raise CallRefused(errno.E2BIG, f"{len(ranges)} ranges are more than {self._max_ranges}")
        if page_size < 1 or page_size & (page_size - 1):
            raise CallRefused(errno.EINVAL, f"{page_size} bytes are no page size")
        for iova, length in ranges:
            if iova < 0 or length <= 0 or (iova | length) % page_size:
                raise CallRefused(errno.EINVAL, f"Range of {length} bytes at 0x{iova:x} is not of whole pages")
            if iova + length > U64_MAX:
                raise CallRefused(errno.EOVERFLOW, f"Range of {length} bytes at 0x{iova:x} passes the end of the space")
        ordered = sorted(ranges)
        if any(low + length > high for (low, length), (high, _) in pairwise(ordered)):
            raise CallRefused(errno.EINVAL, "Ranges overlap")
