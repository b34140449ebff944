"""The passed-through devices of a machine: opened, attached, listening."""

import os
from dataclasses import dataclass

from vfio_host.interface.calls import DeviceConfiguration, HostConfiguration
from vfio_host.interface.numbers import MAX_DIRTY_BITMAP_BYTES, PAGE_SIZE, MigrationFlags
from vmm.assembly.specification import DeviceSpecification, MachineSpecification
from vmm.memory.guest_physical import GuestMemory
from vmm.vfio.blockers import DeviceFacts, bitmap_limit
from vmm.vfio.container import Backend, Container
from vmm.vfio.device import VfioDevice, open_group
from vmm.vfio.dirty_tracker import TrackedDevice, Tracker, tracker
from vmm.vfio.host_port import HostPort
from vmm.vfio.iommufd_backend import IommufdBackend
from vmm.vfio.listener import VfioListener
from vmm.vfio.type1_backend import Type1Backend


@dataclass(frozen=True, slots=True)
class AssembledDevice:
    """A device with its container, its listener and its eventfds."""

    specification: DeviceSpecification
    device: VfioDevice
    container: Container
    listener: VfioListener
    completion: int
    doorbell: int

    def read(self, offset: int) -> int:
        """Read a register, as the guest does."""
        return self.device.read(offset)

    def write(self, offset: int, value: int) -> None:
        """Write a register, as the guest does."""
        self.device.write(offset, value)

    def ring_doorbell(self) -> None:
        """Ring the doorbell, which the host process waits for."""
        os.eventfd_write(self.doorbell, 1)


def host_configuration(specification: MachineSpecification) -> HostConfiguration:
    """Return what the host process of a machine must have."""
    return HostConfiguration(
        devices=tuple(
            DeviceConfiguration(
                name=device.name,
                model=device.model,
                iommu_dirty_tracking=device.backend == "iommufd" and device.host_iommu_dirty_tracking,
                mediated=device.mediated,
            )
            for device in specification.device
        )
    )


def assemble(specification: DeviceSpecification, host: HostPort, memory: GuestMemory) -> AssembledDevice:
    """Open a device, attach it to a container of its own, and give it its eventfds.

    Raises:
        HostCallFailed: The host has no such device, or refuses to attach it.
    """
    backend: Backend
    if specification.backend == "type1":
        group = open_group(host, specification.name)
        backend = Type1Backend(host, group, memory.block.address)
        device = VfioDevice.open_in_group(group, specification.name)
        tracks = True
    else:
        device = VfioDevice.open_cdev(host, specification.name)
        iommufd = IommufdBackend(
            host,
            device.descriptor,
            memory.block.descriptor,
            want_tracking=specification.host_iommu_dirty_tracking,
            mediated=specification.mediated,
        )
        backend, tracks = iommufd, iommufd.tracks
    chosen = tracker([TrackedDevice(has_log=False)], container_tracks=tracks, type1=specification.backend == "type1")
    container = Container(backend, chosen, memory.block.pages)
    completion = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    device.set_eventfds(completion, doorbell)
    listener = VfioListener(memory, container)
    return AssembledDevice(specification, device, container, listener, completion, doorbell)


def facts_of(assembled: AssembledDevice, *, viommu: bool) -> DeviceFacts:
    """Return what the blockers' rules look at."""
    specification = assembled.specification
    chosen = assembled.container.tracker
    return DeviceFacts(
        name=specification.name,
        enable_migration=specification.enable_migration,
        stop_copy=MigrationFlags.STOP_COPY in assembled.device.flags,
        p2p=MigrationFlags.P2P in assembled.device.flags,
        log_usable=False,  # no model of this version has a DMA log
        iommu_dirty_tracking=chosen is Tracker.IOMMU,
        container_tracks=chosen in (Tracker.IOMMU, Tracker.PERPETUAL),
        limit_bytes=bitmap_limit(MAX_DIRTY_BITMAP_BYTES, PAGE_SIZE) if specification.backend == "type1" else None,
        behind_viommu=viommu and not specification.bypass_iommu,
    )
