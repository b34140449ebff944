"""What one device sees, and the order in which its listener hears of changes (semantics 4.12 to 4.14).

Two views exclude each other: RAM as it is, or what the vIOMMU translates. At a switch the old one is taken away before
the new one is shown. First-stage tables are followed for the unit's own translations only: nesting them under a
passed-through device's host tables is out of scope, so such a device has nothing mapped and its requests fail.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from vmm.memory.guest_physical import GuestMemory
from vmm.rules import Rules
from vmm.viommu.commands import InvalidateIotlb, InvalidatePasids
from vmm.viommu.context import Binding, FirstStage, PassThrough, SecondStage
from vmm.viommu.errors import CachingModeRequired, SnoopControlUnsupported
from vmm.viommu.events import AddressSpaceListener, IommuEvent
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.iova_tree import DmaMap
from vmm.viommu.registers import VtdConfiguration
from vmm.viommu.shadow import Shadow
from vmm.viommu.walk import INTERRUPT_FIRST, INTERRUPT_LAST, SecondStageWalker, Translation

_EVERYTHING: Final = (1 << 64) - 1


class View(Enum):
    """Which of the two regions of a device's address space is enabled."""

    RAM = "ram"
    TRANSLATED = "translated"


@dataclass(frozen=True, slots=True)
class SpaceContext:
    """What the unit lends to each of its address spaces.

    `look_up` reads the structures in RAM, past every cache, and answers None while translation is off. `translate` is
    a device's own request, which records its fault.
    """

    configuration: VtdConfiguration
    rules: Rules
    memory: GuestMemory
    walker: SecondStageWalker
    look_up: Callable[[int], Binding | Fault | None]
    translate: Callable[[int, int, bool], Translation | Fault]
    dirty_tracking_active: Callable[[], bool]


class DeviceAddressSpace:
    """One device of bus 0 behind the unit. It differs from RAM's own also where the unit translates nothing.

    `max_iova` (None where the unit reports no address width) and `dma_translation` are the attributes of semantics
    4.15, known before anything is mapped. `lookups_refused` counts syncs that met malformed structures.
    """

    def __init__(self, devfn: int, context: SpaceContext) -> None:
        configuration = context.configuration
        top = (1 << configuration.aw_bits) - 1
        self.devfn: Final = devfn
        self.max_iova: Final = top if configuration.reports_max_iova else None
        self.dma_translation: Final = configuration.dma_translation
        self.notifier_ranges: Final = ((0, INTERRUPT_FIRST - 1), (INTERRUPT_LAST + 1, top))
        self.lookups_refused = 0
        self._context: Final = context
        self._shadow: Final = Shadow(
            context.memory, context.walker, self.notifier_ranges, context.rules, context.dirty_tracking_active
        )
        self._listener: AddressSpaceListener | None = None
        self._follows_maps = True
        self._binding = self._look_up()
        self._valid = self._valid_binding(None)
        self._view = self._wanted_view()

    @property
    def view(self) -> View:
        """Which view is enabled now."""
        return self._view

    @property
    def announced(self) -> int:
        """How many events came of walks and of mappings taken away, since the beginning."""
        return self._shadow.announced

    @property
    def mappings(self) -> tuple[DmaMap, ...]:
        """What the listener was told is mapped, ascending."""
        return self._shadow.mappings

    def set_listener(self, listener: AddressSpaceListener, *, follows_maps: bool = True) -> None:
        """Let a listener follow this address space; it is told at once what is there.

        One that does not follow mappings registers for UNMAP only: it caches translations by itself.

        Raises:
            SnoopControlUnsupported: The unit forces snooping. There is no listener then.
            CachingModeRequired: The unit would not hear of new mappings. There is no listener then.
        """
        configuration = self._context.configuration
        if configuration.snoop_control:
            raise SnoopControlUnsupported(
                f"Device 0x{self.devfn:02x} is assigned, so the vIOMMU needs snoop control off"
            )
        if follows_maps and configuration.dma_translation and not configuration.caching_mode:
            raise CachingModeRequired(f"Device 0x{self.devfn:02x} is assigned, so the vIOMMU needs caching mode on")
        self._listener, self._follows_maps = listener, follows_maps
        self._show()

    def translate(self, iova: int, *, write: bool) -> Translation | Fault:
        """Translate one access of the device; a fault is also recorded in the unit's registers."""
        return self._context.translate(self.devfn, iova, write)

    def switch(self) -> None:
        """Enable the view that the guest's structures ask for now: the old one goes first (semantics 4.14)."""
        self._binding = self._look_up()
        self._valid = self._valid_binding(self._valid)
        wanted = self._wanted_view()
        if wanted is self._view:
            return
        self._hide()
        self._view = wanted
        self._show()

    def sync(self, first: int = 0, last: int = _EVERYTHING) -> None:
        """Make the listener's mappings equal to the guest's tables within a range; while RAM is shown, do nothing.

        A device whose context is not present loses every mapping. Malformed structures are counted and change
        nothing (semantics 4.12).
        """
        self._sync(self._look_up(), first, last)

    def unmap(self) -> None:
        """Take every mapping away (semantics 4.13)."""
        if self._listener is None or self._view is not View.TRANSLATED:
            return
        if self._follows_maps:
            self._shadow.unmap(self._listener.notify)
        else:
            self._shadow.cover(self._listener.notify, 0, _EVERYTHING)

    def replay(self, deliver: Callable[[IommuEvent], None]) -> None:
        """Bring the mappings up to date, then deliver a MAP for each of them.

        Changes that the guest has not invalidated yet reach the listener first. Were the tree only rebuilt, the
        invalidation that follows would find nothing to change, and the listener's mappings would stay wrong.
        """
        self._sync_tables()
        self._shadow.replay(deliver)

    def invalidate(self, command: InvalidateIotlb) -> None:
        """Follow an invalidation of translations, if it means this device's domain and PASID."""
        binding = self._look_up()
        if command.domain_id is None or _matches(binding, command.domain_id, command.pasid):
            self._sync(binding, *(command.pages or (0, _EVERYTHING)))

    def invalidate_pasid(self, command: InvalidatePasids) -> None:
        """Follow a change of the device's PASID entry, which names it before or after (semantics 4.12).

        An entry that became invalid is found whatever domain and PASID the command names, as QEMU does.
        """
        current, before = self._look_up(), self._valid
        if isinstance(current, Fault):
            if before is not None:
                self._valid = None
                self.unmap()
                self.switch()
            return
        named = any(_matches(binding, command.domain_id, command.pasid) for binding in (before, current))
        if command.domain_id is None or named:
            self.switch()
            self.sync()

    def _look_up(self) -> Binding | Fault | None:
        return self._context.look_up(self.devfn)

    def _valid_binding(self, otherwise: Binding | None) -> Binding | None:
        return otherwise if isinstance(self._binding, Fault) else self._binding

    def _wanted_view(self) -> View:
        untranslated = self._binding is None or isinstance(self._binding, PassThrough)
        return View.RAM if untranslated else View.TRANSLATED

    def _hide(self) -> None:
        if self._listener is None:
            return
        if self._view is View.RAM:
            for section in self._context.memory.sections:
                self._listener.ram_removed(section)
            return
        # A guest blocks a device before it changes its domain, which has emptied the tree. One that does not must
        # not lose what its device wrote.
        if self._shadow.precise:
            self._shadow.unmap_by_mapping(self._listener.notify)
        self._shadow.forget()
        self._listener.iommu_removed(self)

    def _show(self) -> None:
        if self._listener is None:
            return
        if self._view is View.RAM:
            for section in self._context.memory.sections:
                self._listener.ram_added(section)
            return
        self._shadow.forget()
        self._listener.iommu_added(self)
        self._sync_tables()

    def _sync_tables(self) -> None:
        """Follow the tables, if there are valid ones."""
        binding = self._look_up()
        if self._follows_maps and not isinstance(binding, Fault):
            self._sync(binding, 0, _EVERYTHING)

    def _sync(self, binding: Binding | Fault | None, first: int, last: int) -> None:
        if self._listener is None or self._view is not View.TRANSLATED:
            return
        if not self._follows_maps:
            self._shadow.cover(self._listener.notify, first, last)
            return
        match binding:
            case SecondStage():
                self._shadow.sync(self._listener.notify, binding, first, last)
            case Fault(reason=FaultReason.CONTEXT_NOT_PRESENT):
                self._shadow.unmap(self._listener.notify)
            case Fault():
                self.lookups_refused += 1
            case FirstStage():
                pass  # Nothing of it is ever mapped.
            case PassThrough() | None:
                pass  # It takes effect when the guest invalidates its context, which switches the view.


def _matches(binding: Binding | Fault | None, domain_id: int | None, pasid: int | None) -> bool:
    if binding is None or isinstance(binding, Fault):
        return False
    return (domain_id is None or binding.domain_id == domain_id) and (pasid is None or binding.pasid == pasid)
