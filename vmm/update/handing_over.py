"""What the process that has a machine hands over: its documents, and the descriptors of everything that stays open."""

from typing import Final

from vmm.assembly.machine import Machine
from vmm.update.documents import (
    FORMAT,
    IOMMUFD,
    RAM,
    ContainerRecord,
    DeviceRecord,
    EarlyDocument,
    InvalidHandover,
    Mapping,
    Passable,
    StateDocument,
    container_name,
    descriptor_names,
    device_name,
    eventfd_names,
)
from vmm.update.ownership import containers_of
from vmm.vfio.container import Container
from vmm.vfio.host_port import Descriptor
from vmm.vfio.iommufd_backend import IommufdBackend, Placement
from vmm.vfio.type1_backend import Type1Backend

_ON_TYPE1: Final = Placement(0, 0)


def early_document(machine: Machine, name: str) -> tuple[EarlyDocument, tuple[int, ...]]:
    """Return what there is of a machine of that id, and the descriptors that go with it; they stay this process's.

    Raises:
        InvalidHandover: An object of the host has no descriptor that another process could have.
    """
    containers = containers_of(machine)
    records = tuple(_container_record(each) for each in containers)
    places = _placements(containers)
    devices = tuple(_device_record(machine, index, containers, places) for index in range(len(machine.devices)))
    numbers = _numbers(machine, containers)
    names = descriptor_names(records, [device.name for device in devices])
    iommufd = next((each.backend.iommufd for each in containers if isinstance(each.backend, IommufdBackend)), 0)
    document = EarlyDocument(FORMAT, name, machine.memory.block.size, iommufd, records, devices, names)
    return document, tuple(numbers[each] for each in names)


def state_document(
    machine: Machine,
    mappings: tuple[tuple[Mapping, ...], ...],
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


def _numbers(machine: Machine, containers: tuple[Container, ...]) -> dict[str, int]:
    numbers = {RAM: machine.memory.block.descriptor}
    for index, container in enumerate(containers):
        name = IOMMUFD if isinstance(container.backend, IommufdBackend) else container_name(index)
        numbers[name] = _number(container.backend.descriptor, name)
    for device in machine.devices:
        name = device.specification.name
        completion, doorbell = eventfd_names(name)
        numbers[device_name(name)] = _number(device.device.descriptor, device_name(name))
        numbers |= {completion: device.completion, doorbell: device.doorbell}
    return numbers


def _number(descriptor: Descriptor, name: str) -> int:
    if not isinstance(descriptor, Passable):
        raise InvalidHandover(f"{name} has no descriptor that another process could have")
    return descriptor.fileno()
