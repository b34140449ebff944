"""Pages as runs: rows of (first page, count), ascending, maximal, so that one set of pages has one table of runs.

::

    pages  3 4 5 9 12 13   <->   runs  (3, 3) (9, 1) (12, 2)
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from vmm.memory.dirty_bitmap import DirtyBitmap, Pages

Runs = npt.NDArray[np.uint32]
"""Rows of (first page, count)."""

NO_RUNS: Final[Runs] = np.empty((0, 2), dtype=np.uint32)
_WINDOW_WORDS: Final = 4096
"""The memory of a walk over a bitmap: indexes of 2^18 pages, 2 MiB."""
LONG_RUN: Final = 64
"""Pages of a run, on average, from which on it is handled as a run."""


def runs_of(pages: Pages) -> Runs:
    """Return the runs of ascending, distinct pages."""
    if len(pages) == 0:
        return NO_RUNS
    if int(pages[-1]) - int(pages[0]) == len(pages) - 1:
        return np.array([(pages[0], len(pages))], dtype=np.uint32)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(pages) != 1) + 1))
    runs = np.empty((len(starts), 2), dtype=np.uint32)
    runs[:, 0] = pages[starts]
    runs[:, 1] = np.diff(starts, append=len(pages))
    return runs


def pages_of(runs: Runs) -> Pages:
    """Return the pages of runs, ascending."""
    firsts, counts = runs[:, 0].astype(np.int64), runs[:, 1].astype(np.int64)
    if len(runs) == 1:
        return np.arange(firsts[0], firsts[0] + counts[0], dtype=np.int64)
    before = np.cumsum(counts) - counts
    return np.repeat(firsts - before, counts) + np.arange(counts.sum(), dtype=np.int64)


def page_count(runs: Runs) -> int:
    """Return how many pages runs name."""
    return int(runs[:, 1].sum(dtype=np.uint64))


def are_canonical(runs: Runs) -> bool:
    """Return whether runs are not empty, ascending and maximal."""
    firsts, counts = runs[:, 0].astype(np.int64), runs[:, 1].astype(np.int64)
    return bool((counts > 0).all() and (firsts[1:] > firsts[:-1] + counts[:-1]).all())


def pieces(bitmap: DirtyBitmap, size: int) -> Iterator[Pages]:
    """Yield the bitmap's pages, ascending, in pieces of at most `size`, in memory that does not grow with RAM."""
    words = bitmap.words
    for low in range(0, len(words), _WINDOW_WORDS):
        window = words[low : low + _WINDOW_WORDS]
        if not window.any():
            continue
        flags = np.unpackbits(window.view(np.uint8), bitorder="little").view(np.bool_)
        pages = np.flatnonzero(flags) + low * 64
        for start in range(0, len(pages), size):
            yield pages[start : start + size]


def run_pieces(bitmap: DirtyBitmap, size: int) -> Iterator[Runs]:
    """Yield the bitmap's pages as tables of runs, ascending, of at most `size` pages each: long runs cost nothing."""
    firsts, counts = bitmap.run_table()
    rows: list[tuple[int, int]] = []
    room = size
    for begin, end in zip(firsts.tolist(), (firsts + counts).tolist(), strict=True):
        first = begin
        while first < end:
            count = min(room, end - first)
            rows.append((first, count))
            first, room = first + count, room - count
            if not room:
                yield np.array(rows, dtype=np.uint32)
                rows, room = [], size
    if rows:
        yield np.array(rows, dtype=np.uint32)


def split(bitmap: DirtyBitmap, streams: int) -> tuple[DirtyBitmap, ...]:
    """Share a bitmap's pages among streams: equal numbers to one, in ascending parts, so that long runs stay whole.

    The shares are disjoint, their union is the bitmap, and equal bitmaps have equal shares.
    """
    if streams == 1:
        return (bitmap.copy(),)
    per_word = np.bitwise_count(bitmap.words).astype(np.int64)
    up_to = np.cumsum(per_word)
    total = int(up_to[-1]) if len(up_to) else 0
    edges = [_edge(bitmap, up_to, total * share // streams) for share in range(streams + 1)]
    shares = []
    for low, high in pairwise(edges):
        mask = DirtyBitmap(bitmap.pages)
        mask.set_run(low, high - low)
        shares.append(bitmap & mask)
    return tuple(shares)


def _edge(bitmap: DirtyBitmap, up_to: Pages, rank: int) -> int:
    """Return the first page with exactly `rank` pages of the bitmap before it, or the end when there is none after."""
    total = int(up_to[-1]) if len(up_to) else 0
    if rank == 0:
        return 0
    if rank == total:
        return bitmap.pages
    word = int(np.searchsorted(up_to, rank, side="right"))
    before = int(up_to[word - 1]) if word else 0
    flags = np.unpackbits(bitmap.words[word : word + 1].view(np.uint8), bitorder="little")
    return word * 64 + int(np.flatnonzero(flags)[rank - before])
