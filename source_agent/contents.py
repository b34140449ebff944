"""What some of a machine's pages hold: how many are zero, and what codecs make of the others.

Pages are read while the machine runs, at equal distances of what was touched. Whole runs of them go to the codecs, for
pages that follow each other are alike, and travel in one frame.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from vm_migration.transfer.codecs import Compressor
from vm_migration.transfer.digests import zero_rows
from vm_migration.transfer.frames import Codec
from vm_migration.transfer.page_rate import Packing
from vm_migration.transfer.ranges import Range
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock

_PAGES: Final = 2048
"""Pages that are read: a share of zeros is known to about two hundredths then."""
_RUNS: Final = 24
_RUN: Final = 32
"""Pages of each run that goes to the codecs."""
_SURE: Final = 2.0
"""Standard errors to either side, which is where the truth lies in nineteen of twenty."""
_ALIKE: Final = 0.02
"""By how much a ratio may be off beside that: a frame has more pages than a run."""


def data_bytes_of(ram: RamBlock) -> Range:
    """Return how much of RAM holds something other than zeros."""
    touched = _Touched(ram)
    if not touched.pages:
        return Range.exactly(0.0)
    pages = touched.at(np.linspace(0, touched.pages - 1, min(touched.pages, _PAGES)).astype(np.int64))
    share = 1.0 - float(zero_rows(ram.words[pages]).mean())
    every = touched.pages <= _PAGES
    error = 0.0 if every else _SURE * max(share * (1 - share) / len(pages), len(pages) ** -2.0) ** 0.5
    low, high = max(0.0, share - error), min(1.0, share + error)
    total = touched.pages * PAGE_SIZE
    return Range(low * total, share * total, high * total)


def packings_of(ram: RamBlock, now_ns: Callable[[], int]) -> tuple[Packing, ...]:
    """Return what each codec makes of pages that hold something; nothing where no page of the runs does.

    `now_ns` tells how long a codec takes: of a processor's time, for what else the host does is no property of a codec.
    """
    runs = [memoryview(run.tobytes()) for run in _runs(ram)]
    compressor = Compressor()
    return tuple(_packing(codec, runs, compressor, now_ns) for codec in Codec) if runs else ()


def _packing(codec: Codec, runs: list[memoryview], compressor: Compressor, now_ns: Callable[[], int]) -> Packing:
    began = now_ns()
    packed = np.array([len(compressor.compressed(codec, run)) for run in runs], dtype=np.float64)
    took_ns = max(1, now_ns() - began)
    raw = np.array([len(run) for run in runs], dtype=np.float64)
    ratio = min(1.0, float(packed.sum() / raw.sum()))
    error = _ALIKE + _SURE * float(np.std(packed / raw)) / len(runs) ** 0.5
    seen = Range(max(ratio - error, ratio / 2), ratio, min(1.0, ratio + error))
    return Packing(codec, seen, float(raw.sum()) * 1e9 / took_ns)


def _runs(ram: RamBlock) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield pages that follow each other, without those that are zero; runs of which nothing is left are left out."""
    touched = _Touched(ram)
    for first in np.linspace(0, max(0, touched.pages - _RUN), min(_RUNS, touched.pages)).astype(np.int64):
        positions = np.arange(first, min(first + _RUN, touched.pages), dtype=np.int64)
        rows = ram.words[touched.at(positions)]
        data = rows[~zero_rows(rows)]
        if len(data):
            yield data


class _Touched:
    """The pages of RAM that were ever touched, as if they followed each other."""

    def __init__(self, ram: RamBlock) -> None:
        self._extents: Final = np.array(list(ram.extents()), dtype=np.int64).reshape(-1, 2)
        self._ends: Final = np.cumsum(self._extents[:, 1])
        self.pages: Final = int(self._ends[-1]) if len(self._ends) else 0

    def at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the pages that stand at these positions."""
        within = np.searchsorted(self._ends, positions, side="right")
        begins = self._ends[within] - self._extents[within, 1]
        pages: npt.NDArray[np.int64] = self._extents[within, 0] + positions - begins
        return pages
