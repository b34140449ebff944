"""What a vCPU does: it writes pages of its working set at a rate, and checks each page before it writes it again.

A write puts one line of 64 bytes into a page: page number, generation, and six words that follow from seed, page and
generation. The generation of each page stands in a table that lies in guest RAM too. Before the next write the guest
reads the line and compares it with what the table says must be there: a page that came back with older contents is
an error *inside* the guest, found without anybody's help.

==========  =======================================================================================
uniform     every page once per cycle, in a pseudo-random order that is the same in each cycle
sequential  every page once per cycle, in ascending order
zipf        page of rank r with probability about 1/r; ranks are scattered over the working set
==========  =======================================================================================

Rates are *distinct* pages per second. In the first two any run of fewer writes than the working set has pages is
distinct by itself. Under zipf a write of a page that was already written in the present second is free, and a
controller draws so many more that the distinct rate is met, up to sixteen draws for each page.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from vmm.guest.pacing import NEVER, SECOND, Pacer, RateMeter
from vmm.guest.pseudorandom import Permutation, Words, fractions, mixed, mixed_one
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SHIFT, PAGE_SIZE

Pages = npt.NDArray[np.int64]

_LINES: Final = PAGE_SIZE // 64
_BATCH: Final = 2048
"""Pages in one step: about 0.6 ms."""
_FIRST_BATCH: Final = 96
"""Pages in one step of the first cycle, when the host may have to find memory for each (10 us on nested hosts)."""
_QUANTUM_NS: Final = 10_000_000
"""A step costs 0.3 ms however little it writes, so that a vCPU takes no more than a hundred a second."""
_LONG_QUANTUM_NS: Final = 25_000_000
_FEW: Final = 16
"""Pages that are worth a step: who writes fewer in a quantum waits for so many, but no longer than a long quantum."""
_MOST_DRAWS: Final = 16.0
_FACTORS: Final = np.array([mixed_one(index) | 1 for index in range(6)], dtype=np.uint64)


def worth_a_step(rate: int) -> int:
    """Return how many pages a vCPU that writes so many a second writes in a step."""
    usual, long = (rate * quantum // SECOND for quantum in (_QUANTUM_NS, _LONG_QUANTUM_NS))
    return max(usual, min(_FEW, long))


class Pattern(StrEnum):
    """In which order pages are written."""

    UNIFORM = "uniform"
    ZIPF = "zipf"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """Guest-physical places: the pages, and the table of their generations (u32 each)."""

    base: int
    generations: int
    pages: int


class CpuState(msgspec.Struct, frozen=True, array_like=True):
    """A vCPU's registers: everything beyond guest RAM that it needs to go on."""

    draws: int
    pages_written: int
    errors: int


class CpuWorkload:
    """One vCPU. `rate` is in bytes per second of distinct pages."""

    def __init__(self, memory: GuestMemory, place: WorkingSet, *, rate: int, pattern: Pattern, seed: int) -> None:
        self._memory: Final = memory
        self._place: Final = place
        self._pattern: Final = pattern
        self._seed: Final = seed & ((1 << 63) - 1)
        self.draws, self.pages_written, self.errors = 0, 0, 0
        self.asked: Final = rate
        self._pacer: Final = Pacer(rate // PAGE_SIZE if place.pages else 0)
        self._meter: Final = RateMeter()
        self._seen: Final[npt.NDArray[np.bool_]] = np.zeros(place.pages, dtype=np.bool_)
        self._draws_per_page = 1.0
        if not place.pages:
            return
        self._order: Final = Permutation(place.pages, self._seed)
        self._lines: Final[Words] = memory.words(place.base, place.pages * PAGE_SIZE // 8).reshape(-1, 8)
        table = memory.words(place.generations, -(-place.pages // 2))
        self._generations: Final[npt.NDArray[np.uint32]] = table.view(np.uint32)[: place.pages]
        self._first_page: Final = memory.offset_of(place.base) >> PAGE_SHIFT
        self._table_offset: Final = memory.offset_of(place.generations)

    def boot(self) -> None:
        """Begin with a table of zeros: no page has been written yet."""
        if self._place.pages:
            self._generations[:] = 0
            self._memory.mark(self._place.generations, self._place.pages * 4)

    def save(self) -> CpuState:
        """Return the registers."""
        return CpuState(self.draws, self.pages_written, self.errors)

    def load(self, state: CpuState) -> None:
        """Take the registers over; the pace begins anew at the next step."""
        self.draws, self.pages_written, self.errors = state.draws, state.pages_written, state.errors
        self.restart_clock()

    def restart_clock(self) -> None:
        """Forget the clock: after a pause nothing is caught up, and rates are measured anew."""
        self._pacer.restart()
        self._meter.restart()
        self._seen[:] = False

    def rate(self, now_ns: int) -> float:
        """Return the achieved bytes per second of distinct pages."""
        return self._meter.rate(now_ns) * PAGE_SIZE

    def step(self, now_ns: int) -> int:
        """Write what is due, at most about 0.6 ms of work; returns when the next step is due."""
        if self._meter.advance(now_ns):
            self._seen[:] = False
        due = self._pacer.due(now_ns)
        if due > 0:
            fresh = self.write(due)
            self._pacer.spend(fresh)
            self._meter.count(fresh)
            if due > fresh:
                return now_ns if self._pattern is not Pattern.ZIPF else now_ns + _QUANTUM_NS
        if self._pacer.rate == 0:
            return NEVER
        return self._pacer.moment_of(max(1, min(self._batch(), worth_a_step(self._pacer.rate))))

    def write(self, wanted: int) -> int:
        """Write up to a step's worth of pages; returns how many were distinct from all others of this second."""
        draws = min(wanted, self._batch(), self._place.pages)
        if self._pattern is Pattern.ZIPF:
            draws = min(int(draws * self._draws_per_page) + 1, self._batch())
        pages = self._draw(draws)
        self.draws += draws
        self._check_and_write(pages)
        self.pages_written += len(pages)
        if self._pattern is not Pattern.ZIPF:
            return len(pages)
        fresh = int(len(pages) - np.count_nonzero(self._seen[pages]))
        self._seen[pages] = True
        needed = draws / fresh if fresh else _MOST_DRAWS
        self._draws_per_page = min(_MOST_DRAWS, 0.8 * self._draws_per_page + 0.2 * needed)
        return fresh

    def _batch(self) -> int:
        return _BATCH if self.draws >= self._place.pages else _FIRST_BATCH

    def _draw(self, count: int) -> Pages:
        """Return the next pages, each once."""
        counters = np.arange(self.draws, self.draws + count, dtype=np.uint64)
        size = self._place.pages
        if self._pattern is Pattern.SEQUENTIAL:
            return (counters % np.uint64(size)).astype(np.int64)
        if self._pattern is Pattern.UNIFORM:
            return self._order.places(counters % np.uint64(size)).astype(np.int64)
        ranks = np.exp(fractions(counters ^ np.uint64(mixed_one(self._seed))) * np.log(size + 1.0)) - 1.0
        drawn = np.unique(np.minimum(ranks, size - 1).astype(np.uint64))
        return self._order.places(drawn).astype(np.int64)

    def _check_and_write(self, pages: Pages) -> None:
        places = pages * _LINES + (pages * 11 & (_LINES - 1))
        generations = self._generations[pages]
        written = generations != 0
        wrong = (self._lines[places] != self._contents(pages, generations)).any(axis=1)
        self.errors += int(np.count_nonzero(wrong & written))
        generations += np.uint32(1)
        generations[generations == 0] = 1  # zero is kept for "never written"
        self._lines[places] = self._contents(pages, generations)
        self._generations[pages] = generations
        self._memory.log.mark_pages(pages + self._first_page)
        self._memory.log.mark_pages((pages * 4 + self._table_offset) >> PAGE_SHIFT)

    def _contents(self, pages: Pages, generations: npt.NDArray[np.uint32]) -> Words:
        lines = np.empty((len(pages), 8), dtype=np.uint64)
        lines[:, 0] = pages
        lines[:, 1] = generations
        derived = lines[:, 0] << np.uint64(32)
        derived |= lines[:, 1]
        derived ^= np.uint64(self._seed)
        np.multiply(mixed(derived)[:, np.newaxis], _FACTORS, out=lines[:, 2:])
        return lines
