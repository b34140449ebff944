"""A set of pages of a RAM block, one bit each.

Bit i of the little-endian array stands for page i (semantics 3.1). The bitmap is a value: operations that change it
say so by name (`merge`, `clear`), all others return new values.
"""

from collections.abc import Iterator
from typing import Self

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Pages = npt.NDArray[np.int64]


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
        words = np.flatnonzero(self._bits)
        if len(words) == 0:
            return np.empty(0, dtype=np.int64)
        flags = np.unpackbits(self._bits[words].view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        row, bit = np.nonzero(flags)
        return words[row].astype(np.int64) * 64 + bit

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield maximal runs as (first page, count), ascending."""
        pages = self.indexes()
        if len(pages) == 0:
            return
        breaks = np.flatnonzero(np.diff(pages) != 1) + 1
        starts = np.concatenate(([0], breaks))
        ends = np.concatenate((breaks, [len(pages)]))
        firsts = pages[starts]
        yield from zip(firsts.tolist(), (ends - starts).tolist(), strict=True)

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
        low, high = first >> 6, (first + count - 1) >> 6
        head = ~np.uint64(0) << np.uint64(first & 63)
        tail = ~np.uint64(0) >> np.uint64(63 - ((first + count - 1) & 63))
        mask = np.full(high - low + 1, ~np.uint64(0), dtype=np.uint64)
        mask[0] &= head
        mask[-1] &= tail
        if present:
            self._bits[low : high + 1] |= mask
        else:
            self._bits[low : high + 1] &= ~mask
