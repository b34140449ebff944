"""What one device sees, and how its listener is kept in step with the guest's tables.

Two views exclude each other: RAM as it is, or what the vIOMMU translates. At a switch the old one is taken away before
the new one is shown (semantics 4.14). While the vIOMMU translates, the IOVA tree holds exactly what the listener was
told; every invalidation compares it with a walk and sends the difference (semantics 4.12).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from vmm.memory.guest_physical import Section
from vmm.memory.quantities import PAGE_SIZE, GuestPhysicalAddress, Iova
from vmm.viommu.context import Binding, PassThrough, SecondStage
from vmm.viommu.errors import CachingModeRequired
from vmm.viommu.events import AddressSpaceListener, IommuEvent
from vmm.viommu.faults import Fault
from vmm.viommu.invalidation import InvalidateIotlb, InvalidatePasids
from vmm.viommu.iova_tree import READABLE, WRITABLE, DmaMap, IovaTree
from vmm.viommu.registers import VtdConfiguration
from vmm.viommu.walk import INTERRUPT_FIRST, INTERRUPT_LAST, SecondStageWalker, Translation

_EVERYTHING: Final = (1 << 64) - 1


class View(Enum):
    """Which of the two regions of a device's address space is enabled."""

    RAM = "ram"
    TRANSLATED = "translated"


@dataclass(frozen=True, slots=True)
class SpaceContext:
    """What the unit lends to each of its address spaces.

    `look_up` answers None while translation is off. `record` files the fault of a device's request.
    """

    configuration: VtdConfiguration
    sections: tuple[Section, ...]
    walker: SecondStageWalker
    look_up: Callable[[int], Binding | Fault | None]
    record: Callable[[int, int, bool, Fault], None]
    dirty_tracking_active: Callable[[], bool]


class DeviceAddressSpace:
    """One device of bus 0 behind the unit. `max_iova` is None where the unit reports no address width."""

    def __init__(self, devfn: int, context: SpaceContext) -> None:
        configuration = context.configuration
        top = (1 << configuration.aw_bits) - 1
        self.devfn: Final = devfn
        self.max_iova: Final = top if configuration.reports_max_iova else None
        self.dma_translation: Final = configuration.dma_translation
        self.notifier_ranges: Final = ((0, INTERRUPT_FIRST - 1), (INTERRUPT_LAST + 1, top))
        self._context: Final = context
        self._tree: Final = IovaTree()
        self._listener: AddressSpaceListener | None = None
        self._binding = self._look_up()
        self._view = self._wanted_view()

    @property
    def view(self) -> View:
        """Which view is enabled now."""
        return self._view

    @property
    def mappings(self) -> tuple[DmaMap, ...]:
        """What the listener was told is mapped, ascending."""
        return tuple(self._tree)

    def set_listener(self, listener: AddressSpaceListener) -> None:
        """Let a listener follow this address space; it is told at once what is there.

        Raises:
            CachingModeRequired: The unit would not hear of new mappings. There is no listener then.
        """
        configuration = self._context.configuration
        if configuration.dma_translation and not configuration.caching_mode:
            raise CachingModeRequired(f"Device 0x{self.devfn:02x} is assigned, so the vIOMMU needs caching mode on")
        self._listener = listener
        self._show()

    def translate(self, iova: int, *, write: bool) -> Translation | Fault:
        """Translate one access of the device; a fault is also recorded in the unit's registers."""
        binding = self._look_up()
        if binding is None or isinstance(binding, PassThrough):
            page = GuestPhysicalAddress(iova)
            return Translation(page, PAGE_SIZE - 1, readable=True, writable=True)
        if isinstance(binding, Fault):
            result: Translation | Fault = binding
        else:
            result = self._context.walker.translate(binding, iova, write=write)
        if isinstance(result, Fault):
            self._context.record(self.devfn, iova, write, result)
        return result

    def switch(self) -> None:
        """Enable the view that the guest's structures ask for now: the old one goes first (semantics 4.14)."""
        self._binding = self._look_up()
        wanted = self._wanted_view()
        if wanted is self._view:
            return
        self._hide()
        self._view = wanted
        self._show()

    def sync(self, first: int = 0, last: int = _EVERYTHING) -> None:
        """Make the listener's mappings equal to the guest's tables within a range.

        A device without valid structures loses every mapping. While RAM is shown there is nothing to do.
        """
        self._sync(self._look_up(), first, last)

    def unmap(self) -> None:
        """Take every mapping away (semantics 4.13).

        While dirty pages are tracked each mapping goes on its own and names what it mapped, so that what the device
        wrote can be read beforehand. Otherwise a few wide events cover each notifier's range.
        """
        if self._listener is None or self._view is not View.TRANSLATED:
            return
        if self._context.dirty_tracking_active():
            self._unmap_by_mapping(self._listener)
            return
        self._tree.clear()
        for first, last in self.notifier_ranges:
            for start, size in power_of_two_chunks(first, last):
                self._listener.notify(_event(DmaMap(start, size - 1, 0, 0)))

    def replay(self, deliver: Callable[[IommuEvent], None]) -> None:
        """Bring the mappings up to date, then deliver a MAP for each of them.

        Changes that the guest has not invalidated yet reach the listener first. Were the tree only rebuilt, the
        invalidation that follows would find nothing to change, and the listener's mappings would stay wrong.
        """
        self.sync()
        for record in self._tree:
            deliver(_event(record))

    def invalidate(self, command: InvalidateIotlb) -> None:
        """Follow an invalidation of translations, if it means this device's domain and PASID."""
        binding = self._look_up()
        if command.domain_id is None or _matches(binding, command.domain_id, command.pasid):
            self._sync(binding, *(command.pages or (0, _EVERYTHING)))

    def invalidate_pasid(self, command: InvalidatePasids) -> None:
        """Follow a change of the device's PASID entry, which names it before or after (semantics 4.12)."""
        current = self._look_up()
        named = any(_matches(binding, command.domain_id, command.pasid) for binding in (self._binding, current))
        if command.domain_id is not None and not named:
            return
        if isinstance(current, Fault):
            self.unmap()
            self.switch()
        else:
            self.switch()
            self.sync()

    def _look_up(self) -> Binding | Fault | None:
        return self._context.look_up(self.devfn)

    def _wanted_view(self) -> View:
        untranslated = self._binding is None or isinstance(self._binding, PassThrough)
        return View.RAM if untranslated else View.TRANSLATED

    def _hide(self) -> None:
        if self._listener is None:
            return
        if self._view is View.RAM:
            for section in self._context.sections:
                self._listener.ram_removed(section)
            return
        # A guest blocks a device before it changes its domain, which has emptied the tree. One that does not must
        # not lose what its device wrote.
        if self._context.dirty_tracking_active():
            self._unmap_by_mapping(self._listener)
        self._tree.clear()
        self._listener.iommu_removed(self)

    def _show(self) -> None:
        if self._listener is None:
            return
        if self._view is View.RAM:
            for section in self._context.sections:
                self._listener.ram_added(section)
            return
        self._tree.clear()
        self._listener.iommu_added(self)
        self.sync()

    def _unmap_by_mapping(self, listener: AddressSpaceListener) -> None:
        for record in self._tree.clear():
            listener.notify(_event(record._replace(permission=0)))

    def _sync(self, binding: Binding | Fault | None, first: int, last: int) -> None:
        if self._listener is None or self._view is not View.TRANSLATED:
            return
        if isinstance(binding, SecondStage):
            self._sync_tables(self._listener, binding, first, last)
        elif isinstance(binding, Fault):
            self.unmap()
        # Pass-through takes effect when the guest invalidates its context, which switches the view.

    def _sync_tables(self, listener: AddressSpaceListener, stage: SecondStage, first: int, last: int) -> None:
        # A mapping that the range only touches goes as a whole, so all of its range is walked again: the tables may
        # now describe it by smaller leaves that nobody will mention.
        touched = self._tree.overlapping(first, last)
        if touched:
            first, last = min(first, touched[0].iova), max(last, touched[-1].last)
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
        for event in _difference(old, fresh):
            listener.notify(event)

    def _visible(self, stage: SecondStage, first: int, last: int) -> list[DmaMap]:
        """Walk a range, cropped to the notifiers: addresses of the interrupt hole are never translated."""
        found: list[DmaMap] = []
        for low, high in self.notifier_ranges:
            if first <= high and last >= low:
                leaves = self._context.walker.mappings(stage, max(first, low), min(last, high))
                if leaves and leaves[0].iova < low:
                    leaves[0] = _cropped(leaves[0], low, high)
                if leaves and leaves[-1].last > high:
                    leaves[-1] = _cropped(leaves[-1], low, high)
                found.extend(leaves)
        return found


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
            yield _event(old[position]._replace(permission=0))
            position += 1
        yield _event(record)
    for record in old[position:]:
        yield _event(record._replace(permission=0))


def _event(record: DmaMap) -> IommuEvent:
    return IommuEvent(
        Iova(record.iova),
        record.size,
        GuestPhysicalAddress(record.translated),
        bool(record.permission & READABLE),
        bool(record.permission & WRITABLE),
    )


def _cropped(record: DmaMap, low: int, high: int) -> DmaMap:
    first, last = max(record.iova, low), min(record.last, high)
    return DmaMap(first, last - first, record.translated + first - record.iova, record.permission)


def _matches(binding: Binding | Fault | None, domain_id: int | None, pasid: int | None) -> bool:
    if binding is None or isinstance(binding, Fault):
        return False
    return (domain_id is None or binding.domain_id == domain_id) and (pasid is None or binding.pasid == pasid)
