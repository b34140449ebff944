"""A set of pages of a RAM block, one bit each.

Bit i of the little-endian array stands for page i (semantics 3.1). The bitmap is a value: operations that change it
say so by name (`merge`, `clear`), all others return new values.
"""

from collections.abc import Iterator
from typing import Final, Self

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Pages = npt.NDArray[np.int64]

_ONES: Final = ~np.uint64(0)
_WINDOW: Final = 1 << 14
"""Words that runs are looked for in at a time: few enough to stay in a core's cache."""


class DirtyBitmap:
    """The pages of one RAM block that satisfy something: dirty, unsent, stale, witnessed."""

    __slots__ = ("_bits", "pages")

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._bits: Words = np.zeros((pages + 63) // 64, dtype=np.uint64)

    @classmethod
    def full(cls, pages: int) -> Self:
        """Return the bitmap of all pages."""
        bitmap = cls(pages)
        bitmap.set_run(0, pages)
        return bitmap

    @classmethod
    def from_bytes(cls, pages: int, data: bytes) -> Self:
        """Return the bitmap of little-endian words, as the kernel and `to_bytes` write them.

        Raises:
            ValueError: The length is not that of so many pages, or a bit past the last page is set.
        """
        bitmap = cls(pages)
        if len(data) != bitmap._bits.nbytes:
            raise ValueError(f"Bitmap of {pages} pages has {bitmap._bits.nbytes} bytes, not {len(data)}")
        bitmap._bits[:] = np.frombuffer(data, dtype="<u8")
        tail = pages % 64
        if tail and int(bitmap._bits[-1]) >> tail:
            raise ValueError(f"Bitmap has bits set past its {pages} pages")
        return bitmap

    @classmethod
    def from_flags(cls, flags: npt.NDArray[np.uint8]) -> Self:
        """Return the bitmap of the pages whose flag (one byte each) is not zero."""
        bitmap = cls(len(flags))
        packed = np.packbits(flags, bitorder="little")
        bitmap._bits.view(np.uint8)[: len(packed)] = packed
        return bitmap

    @classmethod
    def from_pages(cls, pages: int, indexes: Pages) -> Self:
        """Return the bitmap of the pages named by index, in any order, also twice."""
        flags = np.zeros(pages, dtype=np.uint8)
        flags[indexes] = 1
        return cls.from_flags(flags)

    def to_bytes(self) -> bytes:
        """Return the little-endian words."""
        return self._bits.tobytes()

    def copy(self) -> "DirtyBitmap":
        """Return an equal bitmap that shares nothing."""
        twin = DirtyBitmap(self.pages)
        twin._bits[:] = self._bits
        return twin

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DirtyBitmap) and self.pages == other.pages and bool((self._bits == other._bits).all())

    __hash__ = None  # type: ignore[assignment]  # a bitmap changes, so it cannot be a key

    def __bool__(self) -> bool:
        return bool(self._bits.any())

    def __contains__(self, page: int) -> bool:
        return bool(int(self._bits[page >> 6]) >> (page & 63) & 1)

    def __or__(self, other: "DirtyBitmap") -> "DirtyBitmap":
        return self._combined(self._bits | self._words_of(other))

    def __and__(self, other: "DirtyBitmap") -> "DirtyBitmap":
        return self._combined(self._bits & self._words_of(other))

    def __sub__(self, other: "DirtyBitmap") -> "DirtyBitmap":
        return self._combined(self._bits & ~self._words_of(other))

    def merge(self, other: "DirtyBitmap") -> None:
        """Add the other's pages to these."""
        self._bits |= self._words_of(other)

    def remove(self, other: "DirtyBitmap") -> None:
        """Take the other's pages out of these."""
        self._bits &= ~self._words_of(other)

    @property
    def words(self) -> Words:
        """Return the 64-bit words that hold the set, to be read only."""
        view = self._bits.view()
        view.flags.writeable = False
        return view

    def contains_pages(self, pages: Pages) -> npt.NDArray[np.bool_]:
        """Return for each of the pages, all within the block, whether it is in the set."""
        present: npt.NDArray[np.bool_] = np.not_equal(
            self._bits[pages >> 6] >> (pages & 63).astype(np.uint64) & np.uint64(1), 0
        )
        return present

    def set_pages(self, pages: Pages) -> None:
        """Add these pages, all within the block, in any order."""
        np.bitwise_or.at(self._bits, pages >> 6, np.uint64(1) << (pages & 63).astype(np.uint64))

    def clear_pages(self, pages: Pages) -> None:
        """Take these pages, all within the block, in any order, out."""
        np.bitwise_and.at(self._bits, pages >> 6, ~(np.uint64(1) << (pages & 63).astype(np.uint64)))

    def clear(self) -> None:
        """Empty the set."""
        self._bits[:] = 0

    def set_run(self, first: int, count: int) -> None:
        """Add a run of pages.

        Raises:
            ValueError: The run leaves the block.
        """
        self._change_run(first, count, present=True)

    def merge_bits(self, first: int, count: int, data: bytes) -> None:
        """Add the pages of a run's own bitmap: bit i of the little-endian words stands for page first + i.

        Raises:
            ValueError: The run leaves the block, or the bitmap is too short for it.
        """
        if first < 0 or count <= 0 or first + count > self.pages or len(data) * 8 < count or len(data) % 8:
            raise ValueError(f"Bitmap of {len(data)} bytes does not describe pages {first} to {first + count}")
        words = np.frombuffer(data, dtype="<u8")[: (count + 63) // 64]
        if not words.any():
            return
        if first & 63 == 0:
            words = words.copy()
            if count & 63:
                words[-1] &= ~np.uint64(0) >> np.uint64(64 - (count & 63))
            self._bits[first >> 6 : (first >> 6) + len(words)] |= words
            return
        pages = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")[:count]) + first
        np.bitwise_or.at(self._bits, pages >> 6, np.uint64(1) << (pages & 63).astype(np.uint64))

    def merge_flags(self, first: int, flags: npt.NDArray[np.uint8]) -> None:
        """Add the pages of a run whose flag, one byte each, is not zero; the run begins at a multiple of 8 pages."""
        packed = np.packbits(flags, bitorder="little")
        self._bits.view(np.uint8)[first >> 3 : (first >> 3) + len(packed)] |= packed

    def clear_run(self, first: int, count: int) -> None:
        """Take a run of pages out.

        Raises:
            ValueError: The run leaves the block.
        """
        self._change_run(first, count, present=False)

    def count(self) -> int:
        """Return how many pages are in the set."""
        return int(np.bitwise_count(self._bits).sum())

    def indexes(self) -> Pages:
        """Return the pages in ascending order."""
        return _set_bits(self._bits)

    def run_table(self) -> tuple[Pages, Pages]:
        """Return the maximal runs, ascending, as their first pages and their counts.

        A run begins at a bit whose lower neighbour is clear and ends at one whose upper neighbour is, so that what is
        looked at are words, and only those with such a bit: a terabyte's bitmap takes milliseconds.
        """
        firsts, lasts = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for low in range(0, len(self._bits), _WINDOW):
            window = self._bits[low : low + _WINDOW]
            if not window.any():
                continue
            below, above = window << np.uint64(1), window >> np.uint64(1)
            below[1:] |= window[:-1] >> np.uint64(63)
            above[:-1] |= window[1:] << np.uint64(63)
            below[0] |= self._bits[low - 1] >> np.uint64(63) if low else np.uint64(0)
            above[-1] |= self._bits[low + len(window)] << np.uint64(63) if low + _WINDOW < len(self._bits) else 0
            firsts.append(_set_bits(window & ~below) + low * 64)
            lasts.append(_set_bits(window & ~above) + low * 64)
        first = np.concatenate(firsts)
        return first, np.concatenate(lasts) - first + 1

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield maximal runs as (first page, count), ascending."""
        firsts, counts = self.run_table()
        yield from zip(firsts.tolist(), counts.tolist(), strict=True)

    def contains_run(self, first: int, count: int) -> bool:
        """Return whether every page of a run, which is within the block, is in the set."""
        if count == 0:
            return True
        low, high, head, tail = _edges(first, count)
        if low == high:
            return bool(self._bits[low] & head & tail == head & tail)
        inner = self._bits[low + 1 : high]
        ends = self._bits[low] & head == head and self._bits[high] & tail == tail
        return bool(ends and (inner == _ONES).all())

    def _combined(self, bits: Words) -> "DirtyBitmap":
        result = DirtyBitmap(self.pages)
        result._bits[:] = bits
        return result

    def _words_of(self, other: "DirtyBitmap") -> Words:
        if other.pages != self.pages:
            raise ValueError(f"Bitmaps of {self.pages} and {other.pages} pages do not combine")
        return other._bits  # noqa: SLF001 - its own class

    def _change_run(self, first: int, count: int, *, present: bool) -> None:
        if first < 0 or count < 0 or first + count > self.pages:
            raise ValueError(f"Pages {first} to {first + count} are not within the block's {self.pages}")
        if count == 0:
            return
        low, high, head, tail = _edges(first, count)
        if low == high:
            head &= tail
        for word, mask in ((low, head), (high, tail)) if low < high else ((low, head),):
            self._bits[word] = self._bits[word] | mask if present else self._bits[word] & ~mask
        self._bits[low + 1 : high] = _ONES if present else 0


def _edges(first: int, count: int) -> tuple[int, int, np.uint64, np.uint64]:
    """Return the first and the last word of a run, and its bits in them."""
    last = first + count - 1
    return first >> 6, last >> 6, _ONES << np.uint64(first & 63), _ONES >> np.uint64(63 - (last & 63))


def _set_bits(words: Words) -> Pages:
    """Return the bits that are set, ascending."""
    present = np.flatnonzero(words)
    flags = np.unpackbits(words[present].view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    place = np.flatnonzero(flags.view(np.bool_))
    found: Pages = (present[place >> 6] << 6) + (place & 63)
    return found
