"""The dirty bitmap of a terabyte: merged, counted and listed as runs, with few long runs and with many short ones."""

import time
from typing import Final

import numpy as np

from benchmarks.figures import Row
from vmm.memory.dirty_bitmap import DirtyBitmap

_PAGES: Final = (1 << 40) // 4096
_RUNS: Final = 10_000


def measure(runs: int) -> list[Row]:
    """Return the rows, in milliseconds."""
    random = np.random.default_rng(1)
    cuts = np.sort(random.choice(_PAGES, 2 * _RUNS, replace=False)).tolist()
    even, odd = DirtyBitmap(_PAGES), DirtyBitmap(_PAGES)
    for index in range(0, len(cuts), 2):
        (even if index % 4 else odd).set_run(cuts[index], cuts[index + 1] - cuts[index])
    percent = _PAGES // 200
    one, other = (DirtyBitmap.from_pages(_PAGES, random.choice(_PAGES, percent, replace=False)) for _ in range(2))
    name = "dirty bitmap of 1 TiB: merge, count, list of runs"
    return [
        Row(f"{name}, {_RUNS} runs", "ms", _times(even, odd, runs), must=100.0, better="lower", worst=True),
        Row(f"{name}, 1 % scattered", "ms", _times(one, other, runs), must=1500.0, better="lower", worst=True),
    ]


def _times(bitmap: DirtyBitmap, other: DirtyBitmap, runs: int) -> tuple[float, ...]:
    taken = []
    for _ in range(runs):
        merged = bitmap.copy()
        started = time.perf_counter()
        merged.merge(other)
        count = merged.count()
        listed = list(merged.runs())
        taken.append((time.perf_counter() - started) * 1e3)
        assert sum(length for _, length in listed) == count
    return tuple(taken)
