"""The mappings of one IO address space, in the order of their IOVAs.

They lie in short lists, so that adding one and taking one away costs the same whether there are ten or a million:

::

    firsts   [0x0,            0x7000,          0x100000]      the first IOVA of each list
    lists    [[m, m, m, m],   [m, m, m],       [m, m]]
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

import msgspec

from vfio_host.dirty_bits import DirtyBits, leaf_runs
from vfio_host.memory_file import MemoryFile

_LONGEST: Final = 1024


class Mapping(msgspec.Struct, eq=False, gc=False):
    """The IOVAs [iova, end), which lie on a run of memory; its leaves have dirty bits once one of them is set.

    Nothing changes but `dirty`, and in an update of the machine process who `owner` is, whose locked memory it counts
    as, and whether a user address of theirs is known. `by_file` mappings have none and need none. A struct that the
    collector need not look at: there are hundreds of thousands.
    """

    iova: int
    end: int
    memory: MemoryFile
    offset: int
    readable: bool
    writable: bool
    leaf_sizes: tuple[int, ...]
    owner: int = 0
    by_file: bool = False
    has_address: bool = True
    dirty: DirtyBits | None = None

    @property
    def length(self) -> int:
        """How many bytes it maps."""
        return self.end - self.iova

    def mark(self, first: int, length: int) -> None:
        """Set the bits of the leaves that a run of bytes touches; `first` is counted from the mapping's first byte."""
        if self.dirty is None:
            self.dirty = DirtyBits(leaf_runs(self.iova, self.offset, self.length, self.leaf_sizes))
        self.dirty.mark(first, length)


class Mappings:
    """Mappings that share no byte."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._starts: list[list[int]] = []
        self._lists: list[list[Mapping]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, new: Mapping) -> None:
        """Add a mapping; its range is free."""
        self._count += 1
        place = bisect_right(self._firsts, new.iova) - 1
        if place < 0:
            if not self._firsts:
                self._firsts, self._starts, self._lists = [new.iova], [[new.iova]], [[new]]
                return
            place = 0
        starts, found = self._starts[place], self._lists[place]
        inside = bisect_left(starts, new.iova)
        starts.insert(inside, new.iova)
        found.insert(inside, new)
        self._firsts[place] = starts[0]
        if len(starts) > _LONGEST:
            half = len(starts) // 2
            self._firsts.insert(place + 1, starts[half])
            self._starts.insert(place + 1, starts[half:])
            self._lists.insert(place + 1, found[half:])
            del starts[half:], found[half:]

    def remove_within(self, iova: int, end: int) -> int:
        """Take away the mappings that lie wholly in [iova, end); return how many bytes they had."""
        gone, place = 0, max(bisect_right(self._firsts, iova) - 1, 0)
        while place < len(self._firsts) and self._firsts[place] < end:
            starts, found = self._starts[place], self._lists[place]
            low, high = bisect_left(starts, iova), bisect_left(starts, end)
            if low < high and found[high - 1].end > end:
                high -= 1
            gone += sum(mapping.length for mapping in found[low:high])
            self._count -= high - low
            del starts[low:high], found[low:high]
            if starts:
                self._firsts[place] = starts[0]
                place += 1
            else:
                del self._firsts[place], self._starts[place], self._lists[place]
        return gone

    def at(self, iova: int) -> Mapping | None:
        """Return the mapping of an IOVA, if it has one."""
        below = self._at_or_below(iova)
        return below if below is not None and iova < below.end else None

    def cut_by(self, iova: int, end: int) -> Mapping | None:
        """Return the lowest mapping that lies partly in [iova, end) and partly outside, if there is one."""
        for edge in (iova, end):
            below = self._at_or_below(edge - 1)
            if below is not None and below.end > edge:
                return below
        return None

    def occupied(self, iova: int, end: int) -> bool:
        """Tell whether any mapping shares a byte with [iova, end)."""
        below = self._at_or_below(end - 1)
        return below is not None and below.end > iova

    def overlapping(self, iova: int, end: int) -> Iterator[Mapping]:
        """Yield the mappings that share a byte with [iova, end), ascending; they stay as they are meanwhile."""
        place = max(bisect_right(self._firsts, iova) - 1, 0)
        while place < len(self._firsts) and self._firsts[place] < end:
            starts, found = self._starts[place], self._lists[place]
            inside = max(bisect_right(starts, iova) - 1, 0)
            if found[inside].end <= iova:
                inside += 1
            while inside < len(found) and starts[inside] < end:
                yield found[inside]
                inside += 1
            place += 1

    def _at_or_below(self, iova: int) -> Mapping | None:
        place = bisect_right(self._firsts, iova) - 1
        if place < 0:
            return None
        return self._lists[place][bisect_right(self._starts[place], iova) - 1]
