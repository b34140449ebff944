"""One machine's part of the host: its devices, and what can be opened."""

import errno
from collections.abc import Callable
from typing import Final

from vfio_host.errors import CallRefused, ConfigurationInvalid
from vfio_host.interface import calls
from vfio_host.interface.calls import Answer, AnyCall, Data, Done, HostConfiguration, Number
from vfio_host.interface.numbers import DEV_IOMMU, DEV_KVM, DEV_VFIO, LEAF_SIZES, VFIO_CDEV, VFIO_GROUP
from vfio_host.iommufd import Iommufd
from vfio_host.irqfds import Irqfds
from vfio_host.memory_file import MemoryFiles, UserAddresses
from vfio_host.process.device_file import DeviceFile
from vfio_host.process.iommu_files import ContainerFile, GroupFile, IommuFile
from vfio_host.process.machine_file import MachineFile
from vfio_host.process.memory_limits import no_limit
from vfio_host.process.open_file import OpenFile, Opening, Received, no_such_call
from vfio_host.process.passthrough import PassthroughDevice, iommu_of
from vfio_host.process.witnessed_memory import WitnessedMemory
from vfio_host.type1 import Type1Container

_ADDRESS_WIDTHS: Final = (39, 48, 57)


class Host:
    """The devices of one machine, and the objects that are open.

    A device is open once, by its cdev or by its group: EBUSY otherwise.

    Raises:
        ConfigurationInvalid: An unknown device model, two devices of one name, or an address width or a size of pages
            or leaves that no host of this kind has.
    """

    def __init__(self, configuration: HostConfiguration, limit_of: Callable[[int], int | None] = no_limit) -> None:
        """Build it; `limit_of` tells how many bytes a process may have locked, None for as many as it likes."""
        self._limit_of: Final = limit_of
        if configuration.address_width not in _ADDRESS_WIDTHS:
            raise ConfigurationInvalid(
                f"Address width {configuration.address_width} is not one of {', '.join(map(str, _ADDRESS_WIDTHS))}"
            )
        _check_pages(configuration)
        self._page_size: Final = configuration.page_size
        self._update_vaddr: Final = configuration.update_vaddr
        self._change_process: Final = configuration.change_process
        self.devices: Final[dict[str, PassthroughDevice]] = {}
        for settings in configuration.devices:
            if settings.name in self.devices:
                raise ConfigurationInvalid(f"Two devices are named {settings.name}")
            self.devices[settings.name] = PassthroughDevice(
                settings, iommu_of(configuration, settings), configuration.page_size
            )
        self.addresses: Final = UserAddresses()
        self.files: Final = MemoryFiles()
        self._ram: WitnessedMemory | None = None
        self._irqfds: Final = Irqfds()
        self._last_id = 0
        self._contexts: dict[int, Iommufd] = {}
        self._containers: dict[int, Type1Container] = {}
        self._in_use: set[str] = set()

    def connect(self) -> OpenFile:
        """Return what a new connection talks to."""
        return ConnectionFile(self)

    def register_memory(self, vaddr: int, length: int, descriptor: int, process: int = 0) -> None:
        """Tell what lies at a process's addresses; what was registered last is the RAM that `report_writes` watches."""
        memory = self.files.of(descriptor)
        self.addresses.register(vaddr, length, memory, process)
        if self._ram is not None:
            self._ram.close()
        self._ram = WitnessedMemory(memory, length)

    def report_writes(self, room: int | None) -> bytes:
        """Return the kernel's witness of this process's writes to RAM.

        ENXIO before RAM is registered, ENOMEM where its bitmap is more than `room` bytes.
        """
        if self._ram is None:
            raise CallRefused(errno.ENXIO, "No memory is registered")
        if room is not None and self._ram.report_bytes > room:
            raise CallRefused(errno.ENOMEM, f"Report of {self._ram.report_bytes} bytes does not fit its answer")
        return self._ram.report()

    def locked_bytes(self, process: int) -> int:
        """Return how much of a process's memory is locked because devices reach it."""
        on_iommufd = sum(context.locked_bytes(process) for context in self._contexts.values())
        return on_iommufd + sum(container.locked_bytes(process) for container in self._containers.values())

    def _may_lock(self, process: int, size: int) -> bool:
        limit = self._limit_of(process)
        return limit is None or self.locked_bytes(process) + size <= limit

    def open(self, path: str) -> Opening:
        """Open a path. ENOENT for what this host does not have, EBUSY for a device that is open."""
        if path == DEV_IOMMU:
            return self._open_iommu()
        if path == DEV_VFIO:
            return self._open_container()
        if path == DEV_KVM:
            number = self._next_id()
            return Opening(number, MachineFile(number, self._irqfds))
        if path.startswith(VFIO_CDEV):
            device = self._claim(path.removeprefix(VFIO_CDEV))
            return self._open_device(device, None)
        if path.startswith(VFIO_GROUP):
            device = self._claim(path.removeprefix(VFIO_GROUP))
            group = GroupFile(
                device,
                self._container,
                lambda group: self._open_device(device, group),
                lambda: self._in_use.discard(device.name),
            )
            return Opening(self._next_id(), group)
        raise CallRefused(errno.ENOENT, f"Host has no {path}")

    def _open_iommu(self) -> Opening:
        number, context = self._next_id(), Iommufd(self._page_size, may_lock=self._may_lock)
        self._contexts[number] = context
        file = IommuFile(
            context,
            self.addresses,
            self.files,
            lambda: self._contexts.pop(number),
            changes_process=self._change_process,
        )
        return Opening(number, file)

    def _open_container(self) -> Opening:
        container = Type1Container(
            self.addresses, self._page_size, updates_vaddr=self._update_vaddr, may_lock=self._may_lock
        )
        number = self._next_id()
        self._containers[number] = container
        return Opening(number, ContainerFile(container, lambda: self._containers.pop(number)))

    def _open_device(self, device: PassthroughDevice, group: GroupFile | None) -> Opening:
        leave = group.device_closed if group is not None else lambda: self._in_use.discard(device.name)
        file = DeviceFile(device, self._context, self._next_id, leave, bound=group is not None)
        return Opening(self._next_id(), file)

    def _claim(self, name: str) -> PassthroughDevice:
        device = self.devices.get(name)
        if device is None:
            raise CallRefused(errno.ENOENT, f"Host has no device {name}")
        if name in self._in_use:
            raise CallRefused(errno.EBUSY, f"Device {name} is open already")
        self._in_use.add(name)
        return device

    def _context(self, number: int) -> Iommufd:
        context = self._contexts.get(number)
        if context is None:
            raise CallRefused(errno.EBADF, f"No open iommufd has the id {number}")
        return context

    def _container(self, number: int) -> Type1Container:
        container = self._containers.get(number)
        if container is None:
            raise CallRefused(errno.EBADF, f"No open container has the id {number}")
        return container

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id


def _check_pages(configuration: HostConfiguration) -> None:
    known = LEAF_SIZES.get(configuration.page_size)
    if known is None:
        sizes = ", ".join(map(str, LEAF_SIZES))
        raise ConfigurationInvalid(f"Page size {configuration.page_size} is not one of {sizes}")
    if configuration.leaf_size not in {0, *known}:
        sizes = ", ".join(map(str, known))
        raise ConfigurationInvalid(f"Leaf size {configuration.leaf_size} is not one of {sizes}")


class ConnectionFile(OpenFile):
    """A connection: opens paths, and tells what lies at the caller's addresses."""

    def __init__(self, host: Host) -> None:
        self._host: Final = host

    def release(self) -> None:
        """Disconnect; what was opened and registered stays, as descriptors outlive the process that opened them."""

    def call(self, call: AnyCall, received: Received) -> Answer | Opening:
        """Open a path, or register memory: the n-th registration of a batch takes its n-th descriptor."""
        match call:
            case calls.Open():
                return self._host.open(call.path)
            case calls.RegisterMemory():
                self._host.register_memory(call.vaddr, call.length, received.following(), received.caller)
                return Done()
            case calls.LockedMemory():
                return Number(self._host.locked_bytes(received.caller))
            case calls.ReportWrites():
                return Data(memoryview(self._host.report_writes(received.room)))
            case _:
                raise no_such_call(self, call)
