"""The open files that hold mappings: /dev/iommu, /dev/vfio/vfio and its groups."""

import errno
from collections.abc import Callable
from typing import Final

from vfio_host.errors import CallRefused
from vfio_host.interface import calls
from vfio_host.interface.calls import Answer, AnyCall, Done, Number
from vfio_host.iommufd import Iommufd
from vfio_host.memory_file import MemoryFile, MemoryFiles, UserAddresses
from vfio_host.process.open_file import OpenFile, Opening, Received, no_such_call
from vfio_host.process.passthrough import PassthroughDevice
from vfio_host.type1 import Type1Container


class IommuFile(OpenFile):
    """/dev/iommu. Bound devices keep the context beyond the file."""

    def __init__(
        self,
        context: Iommufd,
        addresses: UserAddresses,
        files: MemoryFiles,
        leave: Callable[[], object],
        *,
        changes_process: bool = True,
    ) -> None:
        self.context: Final = context
        self._addresses: Final = addresses
        self._files: Final = files
        self._leave: Final = leave
        self._changes_process: Final = changes_process

    def release(self) -> None:
        """Close the file; nothing can be bound to it any more."""
        self._leave()

    def call(self, call: AnyCall, received: Received) -> Answer:
        """Carry out an iommufd call."""
        answer = self._address_space_call(call, received)
        return answer if answer is not None else self._page_table_call(call, received)

    def _address_space_call(self, call: AnyCall, received: Received) -> Answer | None:
        context = self.context
        match call:
            case calls.IoasAlloc():
                return Number(context.ioas_alloc())
            case calls.IoasIovaRanges():
                return context.iova_ranges(call.ioas_id)
            case calls.IoasMap():
                memory, offset = self._find(call, received.caller)
                self._map(call, memory, offset, received.caller, by_file=False)
            case calls.IoasMapFile():
                memory = received.memory(call.file, self._files)
                self._map(call, memory, call.start, received.caller, by_file=True)
            case calls.IoasChangeProcess() if self._changes_process:
                context.change_process(received.caller)
            case calls.IoasUnmap():
                return Number(context.unmap(call.ioas_id, call.iova, call.length))
            case _:
                return None
        return Done()

    def _map(
        self, call: calls.IoasMap | calls.IoasMapFile, memory: MemoryFile, offset: int, process: int, *, by_file: bool
    ) -> None:
        self.context.map(
            call.ioas_id,
            call.flags,
            memory,
            offset=offset,
            iova=call.iova,
            length=call.length,
            process=process,
            by_file=by_file,
        )

    def _find(self, call: calls.IoasMap, process: int) -> tuple[MemoryFile, int]:
        """Return the memory at a user address. EFAULT only for a mapping with which nothing else is wrong."""
        try:
            return self._addresses.find(call.user_va, call.length, process)
        except CallRefused:
            self.context.check_map(call.ioas_id, call.flags, offset=call.user_va, iova=call.iova, length=call.length)
            raise

    def _page_table_call(self, call: AnyCall, received: Received) -> Answer:
        context = self.context
        match call:
            case calls.HwptAlloc():
                return Number(context.hwpt_alloc(call.flags, call.dev_id, call.pt_id))
            case calls.GetHwInfo():
                return Number(context.hw_info(call.dev_id))
            case calls.HwptSetDirtyTracking():
                context.set_dirty_tracking(call.hwpt_id, enable=call.enable)
            case calls.HwptGetDirtyBitmap():
                return context.dirty_bitmap(
                    call.hwpt_id, call.flags, call.iova, call.length, call.page_size, limit=received.room
                )
            case calls.Destroy():
                context.destroy(call.id)
            case _:
                raise no_such_call(self, call)
        return Done()


class ContainerFile(OpenFile):
    """/dev/vfio/vfio. Its groups keep the container beyond the file."""

    def __init__(self, container: Type1Container, leave: Callable[[], object]) -> None:
        self.container: Final = container
        self._leave: Final = leave

    def release(self) -> None:
        """Close the file; no group can join it any more."""
        self._leave()

    def call(self, call: AnyCall, received: Received) -> Answer:
        """Carry out a type1 call."""
        container = self.container
        match call:
            case calls.SetIommu():
                container.set_iommu()
            case calls.CheckExtension():
                return Number(int(container.extension(call.extension)))
            case calls.GetInfo():
                return container.info()
            case calls.MapDma():
                container.map(call.flags, call.vaddr, call.iova, call.size, received.caller)
            case calls.UnmapDma():
                return container.unmap(
                    call.flags,
                    call.iova,
                    call.size,
                    pgsize=call.pgsize,
                    bitmap_size=call.bitmap_size,
                    limit=received.room,
                )
            case calls.DirtyPages():
                bitmap = container.dirty_pages(
                    call.flags,
                    call.iova,
                    call.size,
                    pgsize=call.pgsize,
                    bitmap_size=call.bitmap_size,
                    limit=received.room,
                )
                return Done() if bitmap is None else bitmap
            case _:
                raise no_such_call(self, call)
        return Done()


class GroupFile(OpenFile):
    """/dev/vfio/group/NAME, the group of one device. An open device keeps the group in its container."""

    def __init__(
        self,
        device: PassthroughDevice,
        container_of: Callable[[int], Type1Container],
        open_device: Callable[["GroupFile"], Opening],
        leave: Callable[[], None],
    ) -> None:
        self.device: Final = device
        self._container_of: Final = container_of
        self._open_device: Final = open_device
        self._leave: Final = leave
        self._container: Type1Container | None = None
        self._device_open = False
        self._released = False

    def call(self, call: AnyCall, received: Received) -> Answer | Opening:
        """Carry out a group call."""
        match call:
            case calls.GroupSetContainer():
                if self._container is not None:
                    raise CallRefused(errno.EINVAL, f"Group {self.device.name} has a container already")
                container = self._container_of(call.container)
                container.add_group(self.device.name, self.device.iommu)
                self._container = container
                return Done()
            case calls.GroupGetDevice():
                return self._get_device(call.name)
            case _:
                raise no_such_call(self, call)

    def _get_device(self, name: str) -> Opening:
        if self._container is None or self._container.table is None:
            raise CallRefused(errno.EINVAL, f"Group {self.device.name} has no container with an IOMMU driver")
        if name != self.device.name:
            raise CallRefused(errno.ENODEV, f"Group {self.device.name} has no device {name}")
        if self._device_open:
            raise CallRefused(errno.EBUSY, f"Device {name} is open already")
        self._device_open = True
        self.device.hardware.attach(self._container.table)
        return self._open_device(self)

    def device_closed(self) -> None:
        """Take notice that the device's descriptor is closed."""
        self._device_open = False
        self._end()

    def release(self) -> None:
        """Close the group; it stays in its container while its device is open."""
        self._released = True
        self._end()

    def _end(self) -> None:
        if not self._released or self._device_open:
            return
        if self._container is not None:
            self._container.remove_group(self.device.name)
            self._container = None
        self._leave()
