"""What the destination does not have: the unsent set.

::

    harvest ──> dirty ── open_round ──> in flight ── acknowledge(stream) ──> with the destination
                  ^                         |              |
                  '------- merge_back ------'---- unsent --'

A page may be in both: written again while it is on its way. `remaining` never misses a page that was harvested and
not acknowledged since.
"""

from dataclasses import dataclass

from vm_migration.transfer.errors import WrongOrder
from vm_migration.transfer.page_runs import split
from vmm.memory.dirty_bitmap import DirtyBitmap


@dataclass(frozen=True, slots=True)
class OpenedRound:
    """A round that was opened: its pages, and each stream's share of them."""

    number: int
    bitmap: DirtyBitmap
    shares: tuple[DirtyBitmap, ...]


class UnsentSet:
    """The source's account of an attempt's pages."""

    __slots__ = ("_dirty", "_in_flight", "_next_round")

    def __init__(self, pages: int) -> None:
        self._dirty = DirtyBitmap(pages)
        self._in_flight: dict[int, DirtyBitmap] = {}
        self._next_round = 0

    @property
    def dirty_pages(self) -> int:
        """How many pages the next round would have."""
        return self._dirty.count()

    @property
    def round_open(self) -> bool:
        """Whether some stream's barrier of the last round is not acknowledged."""
        return bool(self._in_flight)

    def harvest(self, written: DirtyBitmap) -> None:
        """Add pages that were written (all pages, before round 0)."""
        self._dirty.merge(written)

    def open_round(self, streams: int) -> OpenedRound:
        """Move what is dirty into flight, and return it; the caller owns the bitmaps.

        Raises:
            WrongOrder: A barrier of the last round is not acknowledged.
        """
        if self._in_flight:
            raise WrongOrder("Opening a round", f"round {self._next_round - 1} in flight", "its barriers acknowledged")
        bitmap = self._dirty.copy()
        shares = split(bitmap, streams)
        self._in_flight = dict(enumerate(shares))
        self._dirty.clear()
        opened = OpenedRound(self._next_round, bitmap, tuple(share.copy() for share in shares))
        self._next_round += 1
        return opened

    def acknowledge(self, number: int, stream: int, unsent: DirtyBitmap | None = None) -> None:
        """Record that the destination confirmed a stream's barrier: its share is there, but for what was not sent.

        Raises:
            WrongOrder: That share is not in flight.
        """
        if number != self._next_round - 1 or stream not in self._in_flight:
            raise WrongOrder(
                f"Acknowledging round {number}, stream {stream}",
                f"round {self._next_round - 1}, streams {sorted(self._in_flight)} in flight",
                "that share in flight",
            )
        del self._in_flight[stream]
        if unsent is not None:
            self._dirty.merge(unsent)

    def merge_back(self) -> None:
        """Make what was sent and not acknowledged dirty again, after a failure."""
        for share in self._in_flight.values():
            self._dirty.merge(share)
        self._in_flight = {}

    def remaining(self) -> DirtyBitmap:
        """Return the pages that the destination may not have as they are."""
        result = self._dirty.copy()
        for share in self._in_flight.values():
            result.merge(share)
        return result
