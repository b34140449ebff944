"""What was sent of pages that are sent again and again: the bases of their deltas, in bounded memory.

::

    page number --- remainder ---> slot: page, round in which it was sent, its 4096 bytes as they were sent

A page has one slot, in which it is, or is not. Whatever is sent of a page that is in its slot is put there, so that
what stands there is what lies at the destination. A page takes a slot from another one only where that one was not
sent in the last round: a working set larger than the memory here keeps its first pages, where the least recently used
ones would each be gone just before they are needed.

What is sent in round 0 is not remembered, for most of it is never sent again, and no delta has a base of that round.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vm_migration.transfer.digests import PageWords
from vm_migration.transfer.frames import RoundArray
from vmm.memory.dirty_bitmap import Pages
from vmm.memory.quantities import PAGE_SIZE

MOST_MEMORY: Final = 256 << 20
"""Bytes that are remembered at most; they take memory once pages are sent again."""
_SHARE: Final = 4
_SMALL: Final = 64 << 20
"""Bytes up to which a machine may be remembered as a whole."""
_CHANGED_WORDS: Final = 128
"""Words of 512 that may have changed in a page whose delta is worth sending: a quarter, so that it becomes shorter."""
_NOBODY: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Deltas:
    """Some of a batch's pages, as what changed in them."""

    chosen: npt.NDArray[np.bool_]
    """Which of the batch's pages."""
    changes: PageWords
    """Their exclusive or with their bases."""
    bases: RoundArray
    """The rounds in which those were sent."""


def memory_for(ram_bytes: int) -> int:
    """Return how many bytes are remembered of a machine's RAM: a quarter of it, but neither little nor too much."""
    return max(min(ram_bytes, _SMALL), min(MOST_MEMORY, ram_bytes // _SHARE))


class SentPages:
    """The pages of one attempt, over all its streams: a page may travel on another one each round."""

    def __init__(self, memory: int = MOST_MEMORY) -> None:
        self._slots: Final = memory // PAGE_SIZE
        self.looked_up = 0
        self.found = 0
        """Of the pages looked up, those that were remembered: `found / looked_up` is the hit rate."""
        self._page = np.full(self._slots, _NOBODY, dtype=np.int64)
        self._round: RoundArray = np.zeros(self._slots, dtype=np.uint32)
        self._rows: PageWords = _no_rows()

    def clear(self) -> None:
        """Forget everything, and give its memory back: pages are sent without being remembered."""
        self._page[:] = _NOBODY
        self._rows = _no_rows()

    def forget(self, pages: Pages) -> None:
        """Forget pages that are sent in another way than as their contents."""
        slots = pages % len(self._page)
        self._page[slots[self._page[slots] == pages]] = _NOBODY

    def deltas(self, pages: Pages, rows: PageWords) -> Deltas:
        """Return which of the pages, as the rows hold them, can be sent as what has changed."""
        slots = pages % len(self._page)
        at = np.flatnonzero(self._page[slots] == pages)
        self.looked_up += len(pages)
        self.found += len(at)
        changes = rows[at] ^ self._rows[slots[at]]
        small = np.count_nonzero(changes, axis=1) <= _CHANGED_WORDS
        if not small.all():
            at, changes = at[small], changes[small]
        chosen = np.zeros(len(pages), dtype=np.bool_)
        chosen[at] = True
        return Deltas(chosen, changes, self._round[slots[at]])

    def remember(self, pages: Pages, rows: PageWords, number: int) -> None:
        """Note what is sent of pages in a round; to be called for all that is sent, and for nothing else."""
        slots = pages % len(self._page)
        free = (self._page[slots] == _NOBODY) | (self._round[slots] + 1 < number)
        taking = np.flatnonzero((self._page[slots] == pages) | free)
        _, first = np.unique(slots[taking], return_index=True)  # of several with the same slot, one
        taking = taking[first]
        if not len(self._rows):
            self._rows = np.empty((self._slots, PAGE_SIZE // 8), dtype=np.uint64)
        taken = slots[taking]
        self._page[taken] = pages[taking]
        self._round[taken] = number
        self._rows[taken] = rows[taking]


def _no_rows() -> PageWords:
    return np.empty((0, PAGE_SIZE // 8), dtype=np.uint64)
