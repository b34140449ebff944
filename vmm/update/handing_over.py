"""What the process that has a machine hands over: its documents, and the descriptors of everything that stays open."""

import errno
from collections.abc import Mapping
from typing import Final

from vfio_host.interface.calls import Dup
from vmm.assembly.machine import Machine
from vmm.update.documents import (
    FORMAT,
    IOMMUFD,
    RAM,
    ContainerRecord,
    DeviceRecord,
    EarlyDocument,
    InvalidHandover,
    StateDocument,
    container_name,
    descriptor_names,
    device_name,
    eventfd_names,
    number_of,
)
from vmm.update.documents import Mapping as DmaMapping
from vmm.update.ownership import containers_of
from vmm.vfio.container import Container
from vmm.vfio.host_port import Descriptor, HostCallFailed
from vmm.vfio.iommufd_backend import IommufdBackend, Placement
from vmm.vfio.type1_backend import Type1Backend

_ON_TYPE1: Final = Placement(0, 0)


def early_document(machine: Machine, name: str) -> EarlyDocument:
    """Return what there is of a machine of that id.

    Raises:
        InvalidHandover: It has a container that is not handed over.
    """
    containers = containers_of(machine)
    records = tuple(_container_record(each) for each in containers)
    places = _placements(containers)
    devices = tuple(_device_record(machine, index, containers, places) for index in range(len(machine.devices)))
    names = descriptor_names(records, [device.name for device in devices])
    iommufd = next((each.backend.iommufd for each in containers if isinstance(each.backend, IommufdBackend)), 0)
    return EarlyDocument(FORMAT, name, machine.memory.block.size, iommufd, records, devices, names)


def objects_of(machine: Machine) -> dict[str, Descriptor]:
    """Return the host's objects that a machine has open, by name."""
    found: dict[str, Descriptor] = {}
    for index, container in enumerate(containers_of(machine)):
        name = IOMMUFD if isinstance(container.backend, IommufdBackend) else container_name(index)
        found[name] = container.backend.descriptor
    return found | {device_name(each.specification.name): each.device.descriptor for each in machine.devices}


def numbers_of(machine: Machine, objects: Mapping[str, Descriptor]) -> dict[str, int]:
    """Return descriptors of everything that is handed over, by name, with those of the host's objects as they are.

    Raises:
        InvalidHandover: An object of the host has none that another process could have.
    """
    numbers = {RAM: machine.memory.block.descriptor}
    for device in machine.devices:
        completion, doorbell = eventfd_names(device.specification.name)
        numbers |= {completion: device.completion, doorbell: device.doorbell}
    return numbers | {name: number_of(descriptor) for name, descriptor in objects.items()}


def for_another_process(machine: Machine) -> dict[str, Descriptor]:
    """Return new descriptors of the host's objects, which only the other process will make calls on.

    Raises:
        HostCallFailed: The host has no more of them.
    """
    made: dict[str, Descriptor] = {}
    try:
        for name, descriptor in objects_of(machine).items():
            made[name] = _duplicate(descriptor)
    except HostCallFailed:
        close_all(made)
        raise
    return made


def _duplicate(descriptor: Descriptor) -> Descriptor:
    opened = descriptor.open(Dup())
    if opened is None:
        raise HostCallFailed(Dup(), errno.EPROTO)
    return opened.descriptor


def close_all(objects: Mapping[str, Descriptor]) -> None:
    """Close descriptors that the other process has by now."""
    for descriptor in objects.values():
        descriptor.close()


def state_document(
    machine: Machine,
    mappings: tuple[tuple[DmaMapping, ...], ...],
    *,
    pause: int,
    epoch: int,
    controller: int,
    released: int,
) -> StateDocument:
    """Return where a machine stands whose vCPUs stand still, with what its fence has seen."""
    state = machine.standing_state()
    return StateDocument(FORMAT, pause, epoch, controller, released, state.origin, state.viommu, state.guest, mappings)


def _container_record(container: Container) -> ContainerRecord:
    match container.backend:
        case Type1Backend() as backend:
            return ContainerRecord("type1", backend.id)
        case IommufdBackend() as backend:
            return ContainerRecord("iommufd", backend.address_space)
    raise InvalidHandover(f"Containers on {type(container.backend).__name__} are not handed over")


def _placements(containers: tuple[Container, ...]) -> dict[int, list[Placement]]:
    """Return the places that are not told yet, by container; devices take them in their order."""
    return {
        index: list(each.backend.placements)
        for index, each in enumerate(containers)
        if isinstance(each.backend, IommufdBackend)
    }


def _device_record(
    machine: Machine, index: int, containers: tuple[Container, ...], places: dict[int, list[Placement]]
) -> DeviceRecord:
    device = machine.devices[index]
    container = next(number for number, each in enumerate(containers) if each is device.container)
    place = places[container].pop(0) if container in places else _ON_TYPE1
    return DeviceRecord(device.specification.name, container, place.device_id, place.table)
