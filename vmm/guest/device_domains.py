"""The domains that one device goes through, and how its buffers are mapped in each.

The kernel's command line fixes the default domain only: identity with `iommu=pt`, a paging domain with `nopt`. A
user-level driver gets a paging domain of its own either way, where it maps all of its memory once, at addresses that
it chooses, in the largest pages that fit (as VFIO_MAP_DMA does). Between two domains there is the blocked one
(semantics 4.1, 4.14).
"""

from collections.abc import Sequence
from typing import Final

from vmm.guest.dma import Buffer, DmaMapper, Mapping
from vmm.guest.layout import DeviceArea
from vmm.guest.vtd_domain import DomainKind, IdentityMapper
from vmm.guest.vtd_driver import VtdDriver
from vmm.memory.quantities import GuestPhysicalAddress, Iova

_SPARE_PAGES: Final = 128
USER_BASE: Final = 0x2_0000_0000
"""Where a user-level driver maps its memory: above the interrupt hole, and nowhere near the memory's own address."""


class KernelMapper(DmaMapper):
    """A device's paging domain, asked of the driver at each use: it is made at boot and remade by a load."""

    def __init__(self, driver: VtdDriver, devfn: int) -> None:
        self._driver: Final = driver
        self._devfn: Final = devfn

    def map(self, buffers: Sequence[Buffer]) -> list[Iova]:
        """Map buffers in the device's domain."""
        return self._driver.domain(self._devfn).map(buffers)

    def unmap(self, mappings: Sequence[Mapping]) -> None:
        """Unmap from the device's domain."""
        self._driver.domain(self._devfn).unmap(mappings)


class StaticMapper(DmaMapper):
    """All of a device's area is mapped already, and stays so until its domain goes."""

    def __init__(self, area: DeviceArea) -> None:
        self._shift: Final = USER_BASE - area.rings

    def map(self, buffers: Sequence[Buffer]) -> list[Iova]:
        """Return where the buffers are mapped."""
        return [Iova(address + self._shift) for address, _ in buffers]

    def unmap(self, mappings: Sequence[Mapping]) -> None:
        """Do nothing."""


class DeviceDomains:
    """One device behind the vIOMMU."""

    def __init__(self, driver: VtdDriver, devfn: int, default: DomainKind) -> None:
        self._driver: Final = driver
        self._devfn: Final = devfn
        self._default: Final = default

    @property
    def present(self) -> DomainKind:
        """Return the domain that the device is in."""
        return self._driver.domain_of(self._devfn)

    def has_room(self) -> bool:
        """Whether enough table pages are left that a driver can go on when something else maps more."""
        return self._driver.spare_pages >= _SPARE_PAGES

    def kernel_mapper(self) -> DmaMapper:
        """Return how the kernel maps buffers for the device."""
        return KernelMapper(self._driver, self._devfn) if self._default is DomainKind.PAGING else IdentityMapper()

    def block(self) -> None:
        """Let every request of the device fault; what its domain maps stays in the tables."""
        self._driver.attach(self._devfn, DomainKind.BLOCKED)

    def enter_default(self) -> None:
        """Bring the device into the kernel's domain.

        Raises:
            MapFailed: No page is left for a table; the device is blocked.
        """
        self._driver.attach(self._devfn, self._default)

    def enter_user(self) -> None:
        """Bring the device into the user-level driver's domain, which maps nothing at first.

        Raises:
            MapFailed: No page is left for a table; the device is blocked.
        """
        self._driver.attach(self._devfn, DomainKind.USER)

    def map_user(self, area: DeviceArea) -> None:
        """Map all of the device's area in the user-level driver's domain.

        Raises:
            MapFailed: No page is left for a table; nothing of it is mapped.
        """
        domain = self._driver.domain(self._devfn, DomainKind.USER)
        domain.map_at(Iova(USER_BASE), (GuestPhysicalAddress(area.rings), area.size))

    def free_user(self) -> None:
        """Free the tables of the user-level driver's domain, which the device has left."""
        self._driver.discard(self._devfn)
