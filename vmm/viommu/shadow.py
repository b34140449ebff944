"""The mappings that a listener was told of, and how they follow the guest's tables (semantics 1.5, 4.12, 4.13).

The IOVA tree holds exactly what the listener was told is mapped. A sync walks the tables and sends the difference; an
unmap of everything goes mapping by mapping while dirty pages are tracked, and by a few wide events otherwise.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Final

from msgspec.structs import replace

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import GuestPhysicalAddress, Iova
from vmm.rules import Rules
from vmm.viommu.context import SecondStage
from vmm.viommu.events import IommuEvent
from vmm.viommu.iova_tree import READABLE, WRITABLE, DmaMap, IovaTree
from vmm.viommu.stale_entry import address_in_entry
from vmm.viommu.walk import SecondStageWalker

Notify = Callable[[IommuEvent], None]
Ranges = tuple[tuple[int, int], tuple[int, int]]

_iova: Final = attrgetter("iova")
_last: Final = attrgetter("last")


class Shadow:
    """One address space's IOVA tree. `ranges` are the notifiers': addresses outside are never announced.

    A leaf around the interrupt hole is announced in pieces, which come and go together.

    `announced` counts events that came of walks and of mappings taken away.
    """

    def __init__(
        self,
        memory: GuestMemory,
        walker: SecondStageWalker,
        ranges: Ranges,
        rules: Rules,
        dirty_tracking_active: Callable[[], bool],
    ) -> None:
        self.announced = 0
        self._memory: Final = memory
        self._walker: Final = walker
        self._ranges: Final = ranges
        self._rules: Final = rules
        self._dirty_tracking_active: Final = dirty_tracking_active
        self._tree: Final = IovaTree()
        self._cut: DmaMap | None = None

    @property
    def mappings(self) -> tuple[DmaMap, ...]:
        """What the listener was told is mapped, ascending."""
        return tuple(self._tree)

    def forget(self) -> None:
        """Empty the tree without a word: the listener knows that all of it is void."""
        self._clear()

    def unmap(self, notify: Notify) -> None:
        """Take every mapping away (semantics 4.13).

        While dirty pages are tracked each mapping goes on its own and names what it mapped, so that what the device
        wrote can be read beforehand; of an empty tree nothing is said. Otherwise, and always without
        `unmap_by_mapping`, wide events cover each notifier's range.
        """
        if self.precise:
            self.unmap_by_mapping(notify)
            return
        self._clear()
        for low, high in self._ranges:
            for start, size in power_of_two_chunks(low, high):
                notify(_wide_unmap(start, size - 1))

    @property
    def precise(self) -> bool:
        """Whether mappings that go all at once go one by one now."""
        return self._rules.unmap_by_mapping and self._dirty_tracking_active()

    def unmap_by_mapping(self, notify: Notify) -> None:
        """Take every mapping away on its own."""
        gone = self._clear()
        self.announced += len(gone)
        for record in gone:
            notify(_unmap(record))

    def cover(self, notify: Notify, first: int, last: int) -> None:
        """Send one UNMAP for what each notifier sees of a range, whether it is mapped or not (semantics 1.6)."""
        for low, high in self._ranges:
            if first <= high and last >= low:
                start = max(low, first)
                notify(_wide_unmap(start, min(high, last) - start))

    def sync(self, notify: Notify, stage: SecondStage, first: int, last: int) -> None:
        """Make the mappings that touch a range equal to the tables.

        Identical mappings are left alone. What changed is unmapped before it is mapped anew.
        """
        # A mapping that the range only touches goes as a whole, so all of its range is walked again: the tables may
        # now describe it by smaller leaves that nobody will mention.
        touched = self._tree.overlapping(first, last)
        if touched:
            first, last = min(first, touched[0].iova), max(last, touched[-1].last)
        if self._cut is not None and self._cut.iova <= last and self._cut.last >= first:
            first, last, self._cut = min(first, self._cut.iova), max(last, self._cut.last), None
        fresh = self._visible(stage, first, last)
        if fresh:
            first, last = min(first, fresh[0].iova), max(last, fresh[-1].last)
        old = self._tree.replace(first, last, fresh)
        if old == fresh:
            return
        if old:
            kept = set(fresh).intersection(old)
            old = [record for record in old if record not in kept]
            fresh = [record for record in fresh if record not in kept]
        if not self._rules.unmap_events_carry_address:
            old = [replace(record, translated=address_in_entry(self._memory, stage, record.iova)) for record in old]
        self.announced += len(old) + len(fresh)
        for event in _difference(old, fresh):
            notify(event)

    def replay(self, notify: Notify) -> None:
        """Send a MAP for each mapping."""
        for record in self._tree:
            notify(_map(record))

    def _clear(self) -> list[DmaMap]:
        self._cut = None
        return self._tree.clear()

    def _visible(self, stage: SecondStage, first: int, last: int) -> list[DmaMap]:
        """Walk a range; what lies between the notifiers, in the interrupt hole, is cut out of what was found."""
        leaves = self._walker.mappings(stage, first, last)
        (_, before), (after, _) = self._ranges
        low = bisect_right(leaves, before, key=_last)
        high = bisect_left(leaves, after, lo=low, key=_iova)
        within = leaves[low:high]
        if within:
            leaves[low:high] = [piece for leaf in within for piece in _cropped(leaf, self._ranges)]
            # Leaves do not overlap, so at most one is larger than the hole.
            self._cut = next((leaf for leaf in within if leaf.iova <= before or leaf.last >= after), self._cut)
        return leaves


def power_of_two_chunks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Cut [first, last] as whole-range notifications are cut: aligned powers of two (semantics 4.9)."""
    while first <= last:
        remaining = 1 << (last - first + 1).bit_length() - 1
        size = min(first & -first, remaining) if first else remaining
        yield first, size
        first += size


def _difference(old: Sequence[DmaMap], fresh: Sequence[DmaMap]) -> Iterator[IommuEvent]:
    """Yield UNMAP and MAP events, ascending; whatever overlaps a new mapping goes before it comes."""
    position = 0
    for record in fresh:
        while position < len(old) and old[position].iova <= record.last:
            yield _unmap(old[position])
            position += 1
        yield _map(record)
    for record in old[position:]:
        yield _unmap(record)


def _map(record: DmaMap) -> IommuEvent:
    permission = record.permission
    readable, writable = permission & READABLE != 0, permission & WRITABLE != 0
    return IommuEvent(Iova(record.iova), record.size, GuestPhysicalAddress(record.translated), readable, writable)


def _unmap(record: DmaMap) -> IommuEvent:
    return IommuEvent(
        Iova(record.iova), record.size, GuestPhysicalAddress(record.translated), readable=False, writable=False
    )


def _wide_unmap(first: int, size: int) -> IommuEvent:
    return IommuEvent(Iova(first), size, GuestPhysicalAddress(0), readable=False, writable=False)


def _cropped(record: DmaMap, ranges: Ranges) -> list[DmaMap]:
    """Cut what lies within ranges as whole ranges are cut, so that no wide UNMAP ends within a mapping."""
    return [
        DmaMap(start, size - 1, record.translated + start - record.iova, record.permission)
        for low, high in ranges
        for start, size in power_of_two_chunks(max(record.iova, low), min(record.last, high))
    ]
