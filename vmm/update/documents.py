"""What a machine process tells the one that takes over from it, beside the descriptors (semantics 9.2, 9.3).

::

    early    before the guest stands still: what each descriptor is, and what the kernel's objects are called
    state    while it stands still: what is mapped, and what vIOMMU and guest keep outside RAM

Both are versioned and canonical: decode then encode gives the same bytes.
"""

from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from vmm.assembly.machine_state import Origin
from vmm.assembly.specification import MachineSpecification

FORMAT: Final = 1
READS: Final = (FORMAT,)
"""This format and the one before, of which there is none yet: tests/versions/updates has documents of each version."""
RAM: Final = "ram"
IOMMUFD: Final = "iommufd"
Mapping = tuple[int, int, int, bool]
"""IOVA, bytes, offset in RAM, and whether devices may write."""


class InvalidHandover(Exception):
    """What came is not a machine that this process can take over. Nothing of it was taken over."""


@runtime_checkable
class Passable(Protocol):
    """A descriptor that can be passed to another process."""

    def fileno(self) -> int:
        """Return its number in this process."""


class ContainerRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A container; `number` is the host's id of it, or of its IO address space."""

    backend: Literal["type1", "iommufd"]
    number: int


class DeviceRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A device, by the name that is the same to every process, and where it is attached; ids are 0 on type1.

    `table` is its hardware page table, or the IO address space itself where it is mediated.
    """

    name: str
    container: int
    device_id: int
    table: int


class EarlyDocument(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What there is; `descriptors` are the names of those that come with it, in their order."""

    version: int
    machine: str
    ram_bytes: int
    iommufd: int
    containers: tuple[ContainerRecord, ...]
    devices: tuple[DeviceRecord, ...]
    descriptors: tuple[str, ...]


class StateDocument(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where it all stood when the guest stood still; `mappings` by container."""

    version: int
    pause: int
    epoch: int
    controller: int
    released: int
    origin: Origin
    viommu: bytes
    guest: bytes
    mappings: tuple[tuple[Mapping, ...], ...]


class Taken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The new process's answer: everything is taken over, or why not."""

    refusal: str = ""


Document = TypeVar("Document", EarlyDocument, StateDocument)
encode: Final = msgspec.msgpack.Encoder().encode


def number_of(descriptor: object) -> int:
    """Return the number of an object of the host that another process can be given.

    Raises:
        InvalidHandover: It has none.
    """
    if not isinstance(descriptor, Passable):
        raise InvalidHandover("An object of the host has no descriptor that another process could have")
    return descriptor.fileno()


def container_name(index: int) -> str:
    """Return what the descriptor of a type1 container is called."""
    return f"container:{index}"


def device_name(name: str) -> str:
    """Return what a device's own descriptor is called."""
    return f"device:{name}"


def eventfd_names(name: str) -> tuple[str, str]:
    """Return what a device's eventfds are called: completion, doorbell."""
    return f"completion:{name}", f"doorbell:{name}"


def descriptor_names(containers: Sequence[ContainerRecord], devices: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all descriptors that a machine of such parts is handed over with."""
    names = [RAM]
    if any(each.backend == "iommufd" for each in containers):
        names.append(IOMMUFD)
    names += [container_name(index) for index, each in enumerate(containers) if each.backend == "type1"]
    for device in devices:
        names += [device_name(device), *eventfd_names(device)]
    return tuple(names)


def decode(data: bytes | bytearray, kind: type[Document]) -> Document:
    """Return a document.

    Raises:
        InvalidHandover: The bytes are not the canonical form of one of this version.
    """
    try:
        version = msgspec.msgpack.decode(data, type=list[msgspec.Raw])[0]
        if bytes(version) not in map(encode, READS):
            read = " and ".join(map(str, READS))
            raise InvalidHandover(f"{kind.__name__} is of a format that this version does not read; it reads {read}")
        document = msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as error:
        raise InvalidHandover(f"{kind.__name__} cannot be read: {error}") from error
    if encode(document) != bytes(data):
        raise InvalidHandover(f"{kind.__name__} is not in its canonical form")
    return document


def require_read(version: int, what: str) -> None:
    """Check that a document is of a format that this version reads.

    Raises:
        InvalidHandover: It is not.
    """
    if version not in READS:
        raise InvalidHandover(f"{what} is of format {version}; this version reads {' and '.join(map(str, READS))}")


def require_fit(document: EarlyDocument, specification: MachineSpecification, machine: str, descriptors: int) -> None:
    """Check that what came is this machine, whole.

    Raises:
        InvalidHandover: It is not; the text says everything that is wrong.
    """
    found = []
    if document.machine != machine:
        found.append(f"Machine {document.machine} is offered to a process of machine {machine}")
    if document.ram_bytes != specification.memory.size:
        found.append(f"RAM has {document.ram_bytes} bytes, the specification says {specification.memory.size}")
    wanted = tuple(device.name for device in specification.device)
    names = tuple(device.name for device in document.devices)
    if names != wanted:
        found.append(f"Devices are {', '.join(names)}; the specification says {', '.join(wanted)}")
    found += _container_faults(document, specification)
    expected = descriptor_names(document.containers, names)
    if document.descriptors != expected or descriptors != len(expected):
        found.append(f"{descriptors} descriptors came, named {', '.join(document.descriptors)}; {len(expected)} belong")
    if found:
        raise InvalidHandover("; ".join(found))


def _container_faults(document: EarlyDocument, specification: MachineSpecification) -> list[str]:
    backends = {device.name: device.backend for device in specification.device}
    found = []
    for device in document.devices:
        if not 0 <= device.container < len(document.containers):
            found.append(f"Device {device.name} is in container {device.container} of {len(document.containers)}")
        elif backends.get(device.name, "") not in ("", document.containers[device.container].backend):
            found.append(f"Device {device.name} is on {document.containers[device.container].backend}")
    return found
