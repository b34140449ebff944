"""Pages that wait: what is dirty again need not be sent now, and what probably will be is sent last.

::

    share of a round --+-- neither late nor dirty again ----------------------------> sent, in order
                       '-- the rest, after all those --+-- dirty again --> left for a later round
                                                       '-- not ----------> sent

A page that was written after the harvest of its round must be sent in a later one, whatever is sent of it now: to leave
it leaves nothing more for that one, and nothing more for a standstill. So a page is **dirty again** by a harvest that
was taken meanwhile, and never by a guess. A guess decides of the order alone: **late** is what was dirtied in each of
the last two rounds, and what lies in an area of 2 MiB of which eight pages or more were dirtied since the round began.
The longer those wait, the more of them are dirty again.

At most half of a round's pages are left. So every round of many pages measures the link, and memory that a tracker
reports dirty for ever goes on being sent.
"""

from typing import Final

import numpy as np

from vmm.memory.dirty_bitmap import DirtyBitmap, Pages

_AREA_WORDS: Final = 8
"""Words of 64 pages each: an area of 2 MiB."""
FIRST_LOOK_MS: Final = 50.0
"""After a round has begun; a shorter one is not worth it."""
_LONGEST_REST_MS: Final = 2000.0
_LOOKING: Final = 0.05
"""The share of the time that looks may take."""
_WORTH_A_LOOK: Final = 64
"""Pages: a quarter of a MiB that need not be sent is about what a look costs."""
BUSY: Final = 8
"""Dirtied pages of an area from which on all of it is late."""


class WaitingPages:
    """What of one round's pages waits; shared by its streams, which ask before each frame."""

    def __init__(self, announced: DirtyBitmap, late: DirtyBitmap) -> None:
        """Begin a round of the announced pages; `late` are those that are sent last in any case."""
        self.left_pages = 0
        """Pages that were dirty again at their turn, and were left."""
        self._room: Final = announced.count() // 2
        self._again = DirtyBitmap(announced.pages)
        self._late = late & announced
        self._any = bool(self._late)

    @property
    def any(self) -> bool:
        """Whether any page waits."""
        return self._any

    def notice(self, written: DirtyBitmap) -> int:
        """Take what was written since the round's harvest, or later; return how many pages of it were not known."""
        noticed = (written - self._again).count()
        if noticed:
            self._again.merge(written)
            self._late.merge(busy_areas(self._again))
            self._any = True
        return noticed

    def at_once(self, pages: Pages) -> Pages:
        """Return those of the pages that do not wait."""
        if not self._any:
            return pages
        waits = self._again.contains_pages(pages) | self._late.contains_pages(pages)
        return pages[~waits] if waits.any() else pages

    def after_all(self, pages: Pages) -> Pages:
        """Return those of the pages that waited, and are to be sent after all; the others are left."""
        again = np.flatnonzero(self._again.contains_pages(pages))[: self._room - self.left_pages]
        self.left_pages += len(again)
        return np.delete(pages, again)


class HotPages:
    """Which pages are dirtied round after round."""

    def __init__(self, pages: int) -> None:
        self._dirtied = DirtyBitmap(pages)
        self.hot = DirtyBitmap(pages)
        """What was dirtied in each of the last two rounds."""

    def closed(self, dirtied: DirtyBitmap) -> None:
        """Take what was dirtied while a round ran."""
        self.hot = self._dirtied & dirtied
        self._dirtied = dirtied


def rest_ms(last_ms: float, *, took_ms: float, noticed: int) -> float:
    """Return how long to wait until writes are looked for again, after a look that took so long and noticed so many.

    A look that noticed little is followed by the next one after twice the time; looks take a twentieth of it at most.
    """
    rest = FIRST_LOOK_MS if noticed >= _WORTH_A_LOOK else min(2 * last_ms, _LONGEST_REST_MS)
    return max(rest, took_ms / _LOOKING)


def busy_areas(dirtied: DirtyBitmap) -> DirtyBitmap:
    """Return all pages of the areas in which many were dirtied, also those that were not."""
    words = dirtied.words
    areas = -(-len(words) // _AREA_WORDS)
    counts = np.zeros(areas * _AREA_WORDS, dtype=np.uint16)
    counts[: len(words)] = np.bitwise_count(words)
    busy = np.repeat(counts.reshape(areas, _AREA_WORDS).sum(axis=1) >= BUSY, _AREA_WORDS)[: len(words)]
    every = DirtyBitmap.full(dirtied.pages).words
    return DirtyBitmap.from_bytes(dirtied.pages, np.where(busy, every, np.uint64(0)).astype("<u8").tobytes())
