"""VFIO's memory listener: what a device may reach follows its address space (semantics 1.6, 5).

Without translation the device sees RAM, section by section. Behind an enabled vIOMMU it sees what the guest maps:
the vIOMMU's events become mappings and unmappings of the container, each translated to its place in RAM explicitly.
"""

from typing import Final

from vmm.memory.guest_physical import AccessFault, GuestMemory, Section
from vmm.vfio.container import Container, Run
from vmm.viommu.events import IommuEvent
from vmm.viommu.intel import DeviceAddressSpace


class VfioListener:
    """Implements `vmm.viommu.events.AddressSpaceListener` for one device's container."""

    def __init__(self, memory: GuestMemory, container: Container) -> None:
        self.container: Final = container
        self.wrong_targets = 0
        self._memory: Final = memory
        self._sections: dict[int, Section] = {}
        self._space: DeviceAddressSpace | None = None

    def ram_added(self, section: Section) -> None:
        """Map a section of RAM at its guest-physical address."""
        self._sections[section.base] = section
        self.container.map(section.base, Run(section.offset, section.size), writable=True)

    def ram_removed(self, section: Section) -> None:
        """Unmap a section; with its backing told, so that what the device wrote to it is not forgotten."""
        self._sections.pop(section.base, None)
        self.container.unmap(section.base, section.size, Run(section.offset, section.size))

    def iommu_added(self, space: DeviceAddressSpace) -> None:
        """Begin to follow a vIOMMU's events; the replay of what is mapped comes through `notify`."""
        self._space = space

    def iommu_removed(self, space: DeviceAddressSpace) -> None:
        """Drop what is left: the vIOMMU sent precise unmaps before."""
        del space
        self._space = None
        self.container.unmap_all()

    def notify(self, event: IommuEvent) -> None:
        """Follow one event of the vIOMMU; one that does not point to RAM is counted and leads to no mapping."""
        size = event.mask + 1
        try:
            run = Run(self._memory.offset_of(event.translated, size), size)
        except AccessFault:
            self.wrong_targets += 1
            if not (event.readable or event.writable):
                self.container.unmap(event.iova, size, None)
            return
        if event.readable or event.writable:
            self.container.map(event.iova, run, writable=event.writable)
        else:
            self.container.unmap(event.iova, size, run)

    def shown(self) -> tuple[tuple[int, int], ...]:
        """Return (iova, size) of everything that the address space shows the device now, mapped or not."""
        sections = [(int(section.base), section.size) for section in self._sections.values()]
        mappings = () if self._space is None else self._space.mappings
        return (*sections, *((mapping.iova, mapping.size + 1) for mapping in mappings))

    def log_sync(self) -> None:
        """Queue a read of every mapping's dirty bits."""
        for section in self._sections.values():
            self.container.query(section.base, Run(section.offset, section.size))
        if self._space is not None:
            self._space.replay(self._sync_mapping)

    def _sync_mapping(self, event: IommuEvent) -> None:
        size = event.mask + 1
        try:
            run = Run(self._memory.offset_of(event.translated, size), size)
        except AccessFault:
            return
        self.container.query(event.iova, run)
