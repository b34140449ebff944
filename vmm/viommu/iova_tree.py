"""The mappings that one address space has announced, by IOVA (semantics 1.5).

Sizes are inclusive: a page has size 0xfff. Intervals are looked up by overlap. Records never overlap each other.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final

import msgspec

READABLE: Final = 1
WRITABLE: Final = 2

_iova: Final = attrgetter("iova")


class DmaMap(msgspec.Struct, frozen=True, gc=False):
    """One mapping; a struct of numbers, because page-table sync makes and compares hundreds of thousands at once."""

    iova: int
    size: int
    translated: int
    permission: int

    @property
    def last(self) -> int:
        """The last address of the range."""
        return self.iova + self.size

    @property
    def is_writable(self) -> bool:
        """Whether devices may write there."""
        return self.permission & WRITABLE != 0


class IovaTree:
    """Records in a sorted list, which searches as a tree does and compares at the speed of memory."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: list[DmaMap] = []

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[DmaMap]:
        """Iterate in ascending order over the records as they are now; the tree may change meanwhile."""
        return iter(tuple(self._records))

    def overlapping(self, first: int, last: int) -> list[DmaMap]:
        """Return every record that touches [first, last], ascending."""
        low, high = self._span(first, last)
        return self._records[low:high]

    def find(self, first: int, last: int) -> DmaMap | None:
        """Return a record that touches [first, last], if there is one."""
        low, high = self._span(first, last)
        return self._records[low] if low < high else None

    def insert(self, record: DmaMap) -> bool:
        """Add a record; False, and nothing done, when it overlaps one."""
        low, high = self._span(record.iova, record.last)
        if low < high:
            return False
        self._records.insert(low, record)
        return True

    def remove(self, first: int, last: int) -> list[DmaMap]:
        """Remove and return every record that touches [first, last]."""
        return self.replace(first, last, ())

    def replace(self, first: int, last: int, records: Sequence[DmaMap]) -> list[DmaMap]:
        """Put ascending records, which lie within [first, last], in the place of all that touch it; return those."""
        low, high = self._span(first, last)
        removed = self._records[low:high]
        self._records[low:high] = records
        return removed

    def clear(self) -> list[DmaMap]:
        """Remove and return everything."""
        removed, self._records = self._records, []
        return removed

    def _span(self, first: int, last: int) -> tuple[int, int]:
        records = self._records
        high = bisect_right(records, last, key=_iova)
        low = bisect_left(records, first, 0, high, key=_iova)
        if low and records[low - 1].iova + records[low - 1].size >= first:
            low -= 1
        return low, high
