"""Which devices share a container (semantics 1.2, 1.4).

::

    RAM's address space: no vIOMMU, or a bypassed bus       behind the vIOMMU: one address space for each device
        one container for all devices on type1                  a container for each device
        one container for all devices on iommufd

All containers on iommufd share one open /dev/iommu; each has an IO address space of its own in it.
"""

from dataclasses import dataclass
from typing import Final

from vmm.memory.ram_block import RamBlock
from vmm.rules import Rules
from vmm.vfio.container import Container
from vmm.vfio.device import VfioDevice, open_group
from vmm.vfio.dma_logs import ContainerDevice, has_dma_log
from vmm.vfio.host_port import Descriptor, HostCallFailed, HostPort, OpenObject
from vmm.vfio.iommufd_backend import IommufdBackend, open_iommufd
from vmm.vfio.type1_backend import Type1Backend

SpaceKey = int | None
"""An address space: that of a device behind the vIOMMU, by its devfn, or None for RAM's own."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A device in its container.

    `iommu_dirty_tracking` says that the host IOMMU keeps dirty bits for this very device; `has_log`, that it logs.
    """

    device: VfioDevice
    container: Container
    iommu_dirty_tracking: bool
    has_log: bool


class Attachments:
    """Opens devices and puts each into the container that it shares, or into a new one."""

    def __init__(self, host: HostPort, ram: RamBlock, rules: Rules) -> None:
        self._host: Final = host
        self._ram: Final = ram
        self._rules: Final = rules
        self._iommufd: OpenObject | None = None
        self._on_iommufd: Final[dict[SpaceKey, tuple[Container, IommufdBackend]]] = {}
        self._type1: Final[list[tuple[SpaceKey, Container, Type1Backend]]] = []

    def attach(self, name: str, space: SpaceKey, *, type1: bool, mediated: bool, migration: bool) -> Attached:
        """Open a device and attach it; `migration` is false where its migration is switched off.

        Raises:
            HostCallFailed: The host has no such device, or refuses to attach it.
        """
        if type1:
            group = open_group(self._host, name)
            container = self._joined(group, space) or self._type1_container(group, space)
            device = VfioDevice.open_in_group(group, name)
            # Its tracker is not the IOMMU's: it looks at no page table (seeds/001).
            tracks = container.backend.tracks and not self._rules.type1_is_not_iommu_dirty_tracking
        else:
            device = VfioDevice.open_cdev(self._host, name)
            container, backend = self._iommufd_container(space)
            tracks = backend.attach(device.descriptor, mediated=mediated)
        has_log = has_dma_log(device.descriptor)
        migratable = migration and bool(device.flags)
        container.add_device(ContainerDevice(name, device.descriptor, has_log=has_log, migratable=migratable))
        return Attached(device, container, tracks, has_log)

    def _joined(self, group: Descriptor, space: SpaceKey) -> Container | None:
        """Put a group into a container of its address space, where the kernel lets it."""
        for key, container, backend in self._type1:
            if key == space:
                try:
                    backend.join(group)
                except HostCallFailed:  # the next may take it
                    continue
                return container
        return None

    def _type1_container(self, group: Descriptor, space: SpaceKey) -> Container:
        offered = self._rules.type1_dirty_pages_supported
        backend = Type1Backend(self._host, group, self._ram.address, offers_tracker=offered)
        container = Container(backend, self._ram.pages, self._rules)
        self._type1.append((space, container, backend))
        return container

    def _iommufd_container(self, space: SpaceKey) -> tuple[Container, IommufdBackend]:
        if space not in self._on_iommufd:
            self._iommufd = self._iommufd or open_iommufd(self._host)
            backend = IommufdBackend(self._iommufd, self._ram.descriptor)
            self._on_iommufd[space] = Container(backend, self._ram.pages, self._rules), backend
        return self._on_iommufd[space]
