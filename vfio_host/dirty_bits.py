"""Dirty bits of the leaves of one mapping, and the bitmaps that queries make of them.

A bit lives in the leaf entry, so it stands for the whole leaf whatever page size a query asks in (semantics 3.4). The
bits are kept as a byte a leaf, in chunks that exist only where something was written: a mapping of a terabyte costs
nothing until a device writes to it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

_CHUNK_SHIFT: Final = 15
_CHUNK: Final = 1 << _CHUNK_SHIFT
Flags = npt.NDArray[np.uint8]


def bitmap_bytes(pages: int) -> int:
    """Return the length of a bitmap of so many pages: whole 64-bit words (semantics 3.1)."""
    return -(-pages // 64) * 8


def all_ones(bitmap: bytearray, first: int, count: int) -> None:
    """Set a run of bits."""
    last = first + count
    head, tail = -(-first // 8), last // 8
    if head > tail:  # within one byte
        bitmap[tail] |= ((1 << count) - 1) << (first & 7)
        return
    if first & 7:
        bitmap[head - 1] |= (0xFF << (first & 7)) & 0xFF
    bitmap[head:tail] = b"\xff" * (tail - head)
    if last & 7:
        bitmap[tail] |= (1 << (last & 7)) - 1


def merge_flags(bitmap: bytearray, first: int, flags: Flags) -> None:
    """OR a run of flags, one byte a page, into a bitmap from page `first` on."""
    lead = first & 7
    if lead:
        flags = np.concatenate((np.zeros(lead, dtype=np.uint8), flags))
    packed = np.packbits(flags, bitorder="little")
    target = np.frombuffer(bitmap, dtype=np.uint8, count=len(packed), offset=first >> 3)
    target |= packed


class DirtyBits:
    """The bits of one mapping's leaves, by leaf index."""

    __slots__ = ("_chunks", "leaf_shift")

    def __init__(self, leaf_shift: int) -> None:
        self.leaf_shift: Final = leaf_shift
        self._chunks: dict[int, Flags] = {}

    def mark(self, first_byte: int, length: int) -> None:
        """Set the bits of the leaves that a run of bytes touches; offsets are within the mapping."""
        first = first_byte >> self.leaf_shift
        end = ((first_byte + length - 1) >> self.leaf_shift) + 1
        while first < end:
            number, start = first >> _CHUNK_SHIFT, first & (_CHUNK - 1)
            chunk = self._chunks.get(number)
            if chunk is None:
                chunk = self._chunks[number] = np.zeros(_CHUNK, dtype=np.uint8)
            stop = min(_CHUNK, start + end - first)
            chunk[start:stop] = 1
            first += stop - start

    def clear(self) -> None:
        """Reset every bit."""
        self._chunks.clear()

    def collect(self, bitmap: bytearray, *, start: int, end: int, origin: int, page_shift: int, clear: bool) -> None:
        """Add the bits of the bytes [start, end) of this mapping to a bitmap, and reset them when `clear`.

        `origin` is where the bitmap's page 0 lies, as an offset from this mapping's first byte (it may be negative).
        A leaf that the range only partly covers is reported within the range and keeps its bit: nothing is lost.
        """
        first, last = start >> self.leaf_shift, (end - 1) >> self.leaf_shift
        low, high = first >> _CHUNK_SHIFT, last >> _CHUNK_SHIFT
        sparse = high - low > len(self._chunks)
        for number in [n for n in self._chunks if low <= n <= high] if sparse else range(low, high + 1):
            chunk = self._chunks.get(number)
            if chunk is None:
                continue
            base = number << _CHUNK_SHIFT
            window = chunk[max(first - base, 0) : last - base + 1]
            place = (max(first, base) << self.leaf_shift) - origin
            self._report(bitmap, window, place, (start - origin, end - origin), page_shift)
            if clear:
                whole = -(-start // (1 << self.leaf_shift)), end >> self.leaf_shift
                chunk[max(whole[0] - base, 0) : max(whole[1] - base, 0)] = 0
                if not chunk.any():
                    del self._chunks[number]

    def _report(self, bitmap: bytearray, window: Flags, place: int, bounds: tuple[int, int], page_shift: int) -> None:
        """Add a run of leaves; `place` is the first one's offset from the bitmap's page 0, `bounds` what was asked."""
        if self.leaf_shift == page_shift:
            merge_flags(bitmap, place >> page_shift, window)
            return
        dirty = np.flatnonzero(window)
        if self.leaf_shift < page_shift:
            if len(dirty):
                pages = ((dirty << self.leaf_shift) + place) >> page_shift
                flags = np.zeros(int(pages[-1] - pages[0]) + 1, dtype=np.uint8)
                flags[pages - pages[0]] = 1
                merge_flags(bitmap, int(pages[0]), flags)
            return
        for index in dirty.tolist():
            begin = max(place + (index << self.leaf_shift), bounds[0])
            stop = min(place + ((index + 1) << self.leaf_shift), bounds[1])
            all_ones(bitmap, begin >> page_shift, ((stop - 1) >> page_shift) - (begin >> page_shift) + 1)
