"""The host as a process meets it that takes a machine over: everything is open, attached and mapped already.

The machine is assembled as any other, and each call that would make, attach or map what is there already is answered
with what it is, and does not reach the host. What only looks goes through. From `let_go` on every call does.
"""

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from vfio_host.interface import calls
from vfio_host.interface.calls import Answer, AnyCall, Done, Failed, Number, Unmapped
from vfio_host.interface.numbers import DEV_IOMMU, DEV_VFIO, VFIO_CDEV, VFIO_GROUP
from vmm.update.documents import (
    IOMMUFD,
    ContainerRecord,
    DeviceRecord,
    EarlyDocument,
    container_name,
    device_name,
    number_of,
)
from vmm.update.rules import ALL_ON, UpdateRules
from vmm.vfio.host_port import Descriptor, HostCallFailed, HostPort, OpenObject, unless_failed


class _Hold:
    """Whether calls are held back, and by which rules."""

    def __init__(self, rules: UpdateRules) -> None:
        self.over = False
        self.rules: Final = rules


class AdoptedDescriptor(ABC):
    """Implements `vmm.vfio.host_port.Descriptor` on one that came from the process before."""

    def __init__(self, inner: Descriptor, hold: _Hold) -> None:
        self.inner: Final = inner
        self.rules: Final = hold.rules
        self._hold: Final = hold

    def batch(self, calls: Sequence[AnyCall], descriptors: Sequence[int] = ()) -> Sequence[Answer]:
        """Make calls in order."""
        if self._hold.over:
            return self.inner.batch(calls, descriptors)
        return tuple(self._made(call, descriptors) for call in calls)

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        """Make one call."""
        if self._hold.over:
            return self.inner.call(call, descriptors)
        return unless_failed(call, self._made(call, descriptors))

    def open(self, call: AnyCall) -> OpenObject | None:
        """Make one call that answers with a new descriptor, or with none."""
        return self.inner.open(call)

    def close(self) -> None:
        """Close this copy."""
        self.inner.close()

    def fileno(self) -> int:
        """Return its number, for the process that takes over next."""
        return number_of(self.inner)

    @abstractmethod
    def answer(self, call: AnyCall) -> Answer | None:
        """Return what a call that would change the host comes to; None for one that does not."""

    def _made(self, call: AnyCall, descriptors: Sequence[int]) -> Answer:
        answer = self.answer(call)
        return self.inner.batch((call,), descriptors)[0] if answer is None else answer


class _Container(AdoptedDescriptor):
    def answer(self, call: AnyCall) -> Answer | None:
        match call:
            case calls.SetIommu() if self.rules.reconstruct_device:
                return Done()
            case calls.MapDma() if self.rules.preserve_mappings:
                return Done()
            case calls.UnmapDma() if self.rules.preserve_mappings:
                return Unmapped(size=call.size)
        return None


class _Iommufd(AdoptedDescriptor):
    def __init__(self, inner: Descriptor, hold: _Hold, document: EarlyDocument) -> None:
        super().__init__(inner, hold)
        self._spaces: Final = iter([each.number for each in document.containers if each.backend == "iommufd"])
        self._tables: Final = {device.device_id: device.table for device in document.devices}

    def answer(self, call: AnyCall) -> Answer | None:
        match call:
            case calls.IoasAlloc():
                number = next(self._spaces, None)
                return Failed(errno.ENOENT) if number is None else Number(number)
            case calls.HwptAlloc() if self.rules.reconstruct_hwpt:
                return Number(self._tables[call.dev_id]) if call.dev_id in self._tables else Failed(errno.ENOENT)
            case calls.IoasMapFile() if self.rules.preserve_mappings:
                return Done()
            case calls.IoasUnmap() if self.rules.preserve_mappings:
                return Number(call.length)
        return None


class _Device(AdoptedDescriptor):
    def __init__(self, inner: Descriptor, hold: _Hold, record: DeviceRecord) -> None:
        super().__init__(inner, hold)
        self._record: Final = record

    def answer(self, call: AnyCall) -> Answer | None:
        match call:
            case calls.BindIommufd() if self.rules.reconstruct_device:
                return Number(self._record.device_id)
            case calls.AttachPt() if not self.rules.reconstruct_hwpt:  # it stays where it is, whatever that is called
                return Done()
            case calls.AttachPt():  # the next page table is tried after EINVAL, until it is the one
                return Done() if call.pt_id == self._record.table else Failed(errno.EINVAL)
            case calls.SetEventfds():
                return Done()
        return None


class _Group:
    """A device's group, whose own descriptor nobody needs any more: the device keeps it in its container."""

    def __init__(self, device: OpenObject, container: ContainerRecord) -> None:
        self._device: Final = device
        self._container: Final = container

    def batch(self, made: Sequence[AnyCall], descriptors: Sequence[int] = ()) -> tuple[Answer, ...]:
        del descriptors
        return tuple(self._answer(call) for call in made)

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        del descriptors
        return unless_failed(call, self._answer(call))

    def open(self, call: AnyCall) -> OpenObject | None:
        if not isinstance(call, calls.GroupGetDevice):
            raise HostCallFailed(call, errno.ENOTTY)
        return self._device

    def close(self) -> None:
        """Nothing is open."""

    def _answer(self, call: AnyCall) -> Answer:
        if isinstance(call, calls.GroupSetContainer):
            return Done() if call.container == self._container.number else Failed(errno.EINVAL)
        return Failed(errno.ENOTTY)


class AdoptedHost:
    """Implements `vmm.vfio.host_port.HostPort` on the descriptors of a machine that is taken over."""

    def __init__(
        self,
        host: HostPort,
        document: EarlyDocument,
        descriptors: Mapping[str, Descriptor],
        rules: UpdateRules = ALL_ON,
    ) -> None:
        """Hold calls back; `descriptors` are those of the host's objects, by name."""
        self._host: Final = host
        self._document: Final = document
        self._descriptors: Final = descriptors
        self._hold: Final = _Hold(rules)
        self._devices: Final = {device.name: device for device in document.devices}
        self._containers: Final[Iterator[OpenObject]] = iter(
            [
                OpenObject(each.number, _Container(descriptors[container_name(index)], self._hold))
                for index, each in enumerate(document.containers)
                if each.backend == "type1"
            ]
        )

    def let_go(self) -> None:
        """Let every call reach the host from here on."""
        self._hold.over = True

    def open(self, path: str) -> OpenObject:
        """Return what is open already.

        Raises:
            HostCallFailed: ENOENT for what did not come.
        """
        if self._hold.over or not self._hold.rules.preserve_descriptors:
            return self._host.open(path)
        found: OpenObject | None = None
        if path == DEV_VFIO:
            found = next(self._containers, None)
        elif path == DEV_IOMMU and IOMMUFD in self._descriptors:
            iommufd = _Iommufd(self._descriptors[IOMMUFD], self._hold, self._document)
            found = OpenObject(self._document.iommufd, iommufd)
        elif path.startswith(VFIO_CDEV):
            found = self._device(path.removeprefix(VFIO_CDEV))
        elif path.startswith(VFIO_GROUP):
            found = self._group(path.removeprefix(VFIO_GROUP))
        if found is None:
            raise HostCallFailed(calls.Open(path=path), errno.ENOENT)
        return found

    def register_memory(self, address: int, length: int, descriptor: int) -> None:
        """Tell what lies at an address of this process."""
        self._host.register_memory(address, length, descriptor)

    def report_writes(self) -> bytes | None:
        """Return the host process's witness."""
        return self._host.report_writes()

    def _device(self, name: str) -> OpenObject | None:
        record = self._devices.get(name)
        if record is None:
            return None
        return OpenObject(record.device_id, _Device(self._descriptors[device_name(name)], self._hold, record))

    def _group(self, name: str) -> OpenObject | None:
        device = self._device(name)
        if device is None:
            return None
        container = self._document.containers[self._devices[name].container]
        return OpenObject(0, _Group(device, container))
