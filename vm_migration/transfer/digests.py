"""Digests of pages: xxh3-64 of the 4096 bytes, as proof that two RAMs hold the same.

The measured fastest way to hash page by page is to map the digest over rows of an array: 0.2 us a page in cache,
against 0.5 us for slices of a memoryview. Nothing is kept here: 8 bytes a page would be 2 GiB for a RAM of 1 TiB, so
the destination compares a digest at once with what lies in its RAM, and both sides remember one bit a page.
"""

from collections.abc import Callable
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import xxhash

from vm_migration.transfer.frames import DigestArray
from vmm.memory.dirty_bitmap import DirtyBitmap, Pages
from vmm.memory.quantities import PAGE_SIZE

PageWords = npt.NDArray[np.uint64]
"""Memory as rows of one page, 512 words each."""

ZERO_DIGEST: Final = np.uint64(xxhash.xxh3_64_intdigest(bytes(PAGE_SIZE)))
"""The digest of a page of zeros; that of a page never touched, without reading it."""

_SAMPLED_WORDS: Final = 64
_digest: Final = cast(
    "Callable[[PageWords], int]", xxhash.xxh3_64_intdigest
)  # an array is a buffer; 3.11 cannot say so


def digests_of_rows(rows: PageWords) -> DigestArray:
    """Return the digest of each row of contiguous memory."""
    return np.fromiter(map(_digest, rows), dtype=np.uint64, count=len(rows))


def digests_of_pages(words: PageWords, pages: Pages) -> DigestArray:
    """Return the digests of ascending pages as they lie in RAM now."""
    if len(pages) and int(pages[-1]) - int(pages[0]) == len(pages) - 1:
        return digests_of_rows(words[int(pages[0]) : int(pages[-1]) + 1])
    rows = map(words.__getitem__, pages.tolist())
    return np.fromiter(map(_digest, rows), dtype=np.uint64, count=len(pages))


def zero_rows(rows: PageWords) -> npt.NDArray[np.bool_]:
    """Return for each row whether it holds nothing but zeros; most others are told by every 64th word."""
    zero = _all_zero(rows[:, ::_SAMPLED_WORDS])
    suspects = np.flatnonzero(zero)
    if len(suspects):
        zero[suspects] = _all_zero(rows[suspects])
    return zero


def _all_zero(rows: PageWords) -> npt.NDArray[np.bool_]:
    zero: npt.NDArray[np.bool_] = np.equal(np.bitwise_or.reduce(rows, axis=1), 0)
    return zero


class StatedDigests:
    """The source's pages whose digest the destination has been told, and that a witness vouches for since.

    Order, so that no write slips between: the witness is read, and `withdraw` called with its report, before the
    pages of a round are read; `state` after. At the pause, after the last report of the witness, `missing` must be
    hashed and told. Without a witness nothing is ever stated before the pause, so everything is missing there.
    """

    __slots__ = ("_stated",)

    def __init__(self, pages: int) -> None:
        self._stated = DirtyBitmap(pages)

    def state(self, told: DirtyBitmap) -> None:
        """Record pages whose digest went to the destination."""
        self._stated.merge(told)

    def withdraw(self, written: DirtyBitmap) -> None:
        """Take out the pages that the witness saw written."""
        self._stated.remove(written)

    def withdraw_all(self) -> None:
        """Take out all pages, as `--verify full` and a witness that failed demand."""
        self._stated.clear()

    def missing(self) -> DirtyBitmap:
        """Return the pages whose digest must be taken from RAM as it stands and told."""
        return DirtyBitmap.full(self._stated.pages) - self._stated
