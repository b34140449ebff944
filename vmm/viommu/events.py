"""What an address space tells its listener (semantics 1.1, 1.6)."""

from typing import TYPE_CHECKING, Protocol

import msgspec

from vmm.memory.quantities import GuestPhysicalAddress, Iova
from vmm.memory.sections import Section

if TYPE_CHECKING:
    from vmm.viommu.address_space import DeviceAddressSpace


class IommuEvent(msgspec.Struct, frozen=True, gc=False):
    """An IOMMUTLBEntry: a MAP with its permissions, or an UNMAP when it is neither readable nor writable.

    `mask` is the length less one. `translated` is what the range maps, or mapped. In wide UNMAPs it is 0: those are
    sent while nobody tracks dirty pages or without `unmap_by_mapping`, and may also cover what was never mapped. In
    an UNMAP that a walk found it is what the entry holds now, mostly 0, without `unmap_events_carry_address`. A struct
    of numbers, because page-table sync makes hundreds of thousands at once.
    """

    iova: Iova
    mask: int
    translated: GuestPhysicalAddress
    readable: bool
    writable: bool

    @property
    def is_unmap(self) -> bool:
        """Whether this takes a mapping away."""
        return not (self.readable or self.writable)


class AddressSpaceListener(Protocol):
    """What follows one device's address space. Of RAM and vIOMMU, the old one is removed before the new is added."""

    def ram_added(self, section: Section) -> None:
        """The device sees this section of RAM at its guest-physical address."""

    def ram_removed(self, section: Section) -> None:
        """The device sees this section no more."""

    def iommu_added(self, space: "DeviceAddressSpace") -> None:
        """The device sees what the vIOMMU translates; what is mapped already follows as MAP events."""

    def iommu_removed(self, space: "DeviceAddressSpace") -> None:
        """The vIOMMU translates for the device no more; every mapping of it is void."""

    def notify(self, event: IommuEvent) -> None:
        """A mapping came or went."""
