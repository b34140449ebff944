"""The passed-through devices of a machine: opened, attached, listening."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from vfio_host.interface.numbers import MigrationFlags
from vmm.assembly.specification import DeviceSpecification, MachineSpecification
from vmm.memory.guest_physical import GuestMemory
from vmm.rules import Rules
from vmm.vfio.attachment import Attachments
from vmm.vfio.backend import describable_bytes
from vmm.vfio.blockers import DeviceFacts
from vmm.vfio.container import Container
from vmm.vfio.device import VfioDevice
from vmm.vfio.host_port import HostPort
from vmm.vfio.listener import IommuAttributes, VfioListener
from vmm.viommu.intel import DeviceAddressSpace, VtdUnit

Eventfds = Callable[[str], tuple[int, int]]
"""Completion and doorbell of a device, by its name."""


@dataclass(frozen=True, slots=True)
class AssembledDevice:
    """A device with its eventfds, and the container and listener that it may share with others.

    `space` is its address space behind the vIOMMU; None where it sees RAM's own.
    """

    specification: DeviceSpecification
    device: VfioDevice
    container: Container
    listener: VfioListener
    space: DeviceAddressSpace | None
    iommu_dirty_tracking: bool
    has_log: bool
    completion: int
    doorbell: int

    def read(self, offset: int) -> int:
        """Read a register, as the guest does."""
        return self.device.read(offset)

    def write(self, offset: int, value: int) -> None:
        """Write a register, as the guest does."""
        self.device.write(offset, value)

    def end_interrupt(self) -> None:
        """Say that the interrupt was taken, as the guest's end of interrupt does; a message needs none."""
        if self.specification.interrupt == "intx":
            self.device.unmask()

    def ring_doorbell(self) -> None:
        """Ring the doorbell, which the host process waits for."""
        os.eventfd_write(self.doorbell, 1)


def new_eventfds(_name: str) -> tuple[int, int]:
    """Make the eventfds of a device."""
    flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
    return os.eventfd(0, flags), os.eventfd(0, flags)


def assemble_devices(
    specification: MachineSpecification,
    host: HostPort,
    memory: GuestMemory,
    unit: VtdUnit | None,
    eventfds: Eventfds = new_eventfds,
) -> tuple[AssembledDevice, ...]:
    """Open the devices, attach each to the container of its address space, and give each its eventfds.

    What a vIOMMU says of itself is asked here, before anything is mapped.

    Raises:
        HostCallFailed: The host lacks a device, or refuses to attach it.
    """
    rules = specification.rules.rules()
    attachments = Attachments(host, memory.block, rules)
    listeners: dict[int, VfioListener] = {}
    return tuple(
        _assemble(device, attachments, listeners, memory, rules=rules, unit=unit, eventfds=eventfds)
        for device in specification.device
    )


def _assemble(
    specification: DeviceSpecification,
    attachments: Attachments,
    listeners: dict[int, VfioListener],
    memory: GuestMemory,
    *,
    rules: Rules,
    unit: VtdUnit | None,
    eventfds: Eventfds,
) -> AssembledDevice:
    space = None if unit is None or specification.bypass_iommu else unit.address_space(specification.devfn)
    attached = attachments.attach(
        specification.name,
        None if space is None else space.devfn,
        type1=specification.backend == "type1",
        mediated=specification.mediated,
        migration=specification.enable_migration != "off",
    )
    container = attached.container
    if id(container) not in listeners:
        attributes = None if space is None else IommuAttributes(space.max_iova, space.dma_translation)
        listeners[id(container)] = VfioListener(memory, container, rules, attributes)
    completion, doorbell = eventfds(specification.name)
    attached.device.set_eventfds(completion, doorbell)
    return AssembledDevice(
        specification,
        attached.device,
        container,
        listeners[id(container)],
        space,
        attached.iommu_dirty_tracking,
        attached.has_log,
        completion,
        doorbell,
    )


def facts_of(assembled: AssembledDevice) -> DeviceFacts:
    """Return what the blockers' rules look at."""
    specification, backend = assembled.specification, assembled.container.backend
    attributes = assembled.listener.attributes
    return DeviceFacts(
        name=specification.name,
        enable_migration=specification.enable_migration,
        stop_copy=MigrationFlags.STOP_COPY in assembled.device.flags,
        p2p=MigrationFlags.P2P in assembled.device.flags,
        log_usable=assembled.has_log,
        iommu_dirty_tracking=assembled.iommu_dirty_tracking,
        container_tracks=backend.tracks,
        limit_bytes=describable_bytes(backend.max_bitmap_bytes, backend.page_size),
        behind_viommu=attributes is not None,
        translates=attributes is None or attributes.dma_translation,
        max_iova=None if attributes is None else attributes.max_iova,
        real_tracker=not backend.perpetual,
    )
