"""The dirty bitmaps of the host's answers, put into RAM's own without ever making them dense."""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from vfio_host.interface.calls import Bitmap
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE
from vmm.vfio.ram_pieces import Piece

_CHUNK: Final = 1 << 17
"""Bytes of a bitmap that are looked at together: a megabyte of flags."""


def merge_answer(dirty: DirtyBitmap, answer: Bitmap, page_size: int, pieces: Iterable[Piece]) -> None:
    """Add what an answer's bits stand for.

    Bit i is `page_size` bytes at i times as many into the range: several pages of RAM where the host's are larger. A
    bit that stands for no RAM is dropped, as is one past the end of the bitmap.
    """
    pages_per_bit = page_size // PAGE_SIZE
    for piece in pieces:
        place = _Place(piece, pages_per_bit, answer.bits)
        for first, count in answer.runs:
            low, high = place.clipped(first * pages_per_bit, (first + count) * pages_per_bit)
            if low < high:
                dirty.set_run(low + place.base, high - low)
        for first_bit, data in _chunks(answer.parts):
            place.merge(dirty, first_bit, data)


def mark(dirty: DirtyBitmap, pieces: Iterable[Piece]) -> None:
    """Add all of some pieces of RAM."""
    for piece in pieces:
        dirty.set_run(piece.offset // PAGE_SIZE, -(-piece.size // PAGE_SIZE))


class _Place:
    """Where a piece's pages are among those of the range, in pages of RAM."""

    def __init__(self, piece: Piece, pages_per_bit: int, bits: int) -> None:
        self._first: Final = piece.at // PAGE_SIZE
        self._end: Final = min(self._first + -(-piece.size // PAGE_SIZE), bits * pages_per_bit)
        self._pages_per_bit: Final = pages_per_bit
        self.base: Final = piece.offset // PAGE_SIZE - self._first

    def clipped(self, low: int, high: int) -> tuple[int, int]:
        """Return the part of a run of the range's pages that is in the piece; empty if low >= high."""
        return max(low, self._first), min(high, self._end)

    def merge(self, dirty: DirtyBitmap, first_bit: int, data: bytes) -> None:
        """Add the bits of a stretch."""
        last = first_bit + len(data) * 8
        if self._pages_per_bit == 1 and self.clipped(first_bit, last) == (first_bit, last) and self.base % 8 == 0:
            # Whole bytes meet whole bytes of RAM's bitmap: filled up to whole words they are merged as they are.
            page = first_bit + self.base
            before = page % 64 // 8
            padded = (bytes(before) + data).ljust(-(-(before + len(data)) // 8) * 8, b"\0")
            dirty.merge_bits(page - before * 8, before * 8 + len(data) * 8, padded)
            return
        flags = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")
        pages = self._pages(np.flatnonzero(flags) + first_bit)
        dirty.set_pages(pages[(pages >= self._first) & (pages < self._end)] + self.base)

    def _pages(self, bits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        step = self._pages_per_bit
        return bits if step == 1 else (bits[:, np.newaxis] * step + np.arange(step)).reshape(-1)


def _chunks(parts: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yield stretches of bits as (first bit, bytes)."""
    for first, data in parts:
        for start in range(0, len(data), _CHUNK):
            yield (first + start) * 8, data[start : start + _CHUNK]
