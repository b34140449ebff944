"""The open files of devices: the device itself, and the data descriptors of its migration."""

import errno
from collections.abc import Callable
from typing import Final

from vfio_host.devices.migration_driver import DataStream, MigrationDriver
from vfio_host.dma_log import DmaLog
from vfio_host.errors import CallRefused
from vfio_host.interface import calls
from vfio_host.interface.calls import Answer, AnyCall, Data, Done, Number
from vfio_host.interface.numbers import U64_MAX, Feature
from vfio_host.iommufd import Iommufd
from vfio_host.process.eventfds import eventfd
from vfio_host.process.open_file import OpenFile, Opening, Received, no_such_call
from vfio_host.process.passthrough import PassthroughDevice

_LOGGING: Final = (Feature.DMA_LOGGING_START, Feature.DMA_LOGGING_STOP, Feature.DMA_LOGGING_REPORT)
_LoggingCall = calls.DmaLoggingStart | calls.DmaLoggingStop | calls.DmaLoggingReport


class DeviceFile(OpenFile):
    """An open device, by its cdev (bound to an iommufd, then attached) or by its group (ready at once).

    Closing it resets the device, detaches it and forgets its eventfds.
    """

    def __init__(
        self,
        device: PassthroughDevice,
        context_of: Callable[[int], Iommufd],
        next_id: Callable[[], int],
        leave: Callable[[], None],
        *,
        bound: bool,
    ) -> None:
        self.device: Final = device
        self._context_of: Final = context_of
        self._next_id: Final = next_id
        self._leave: Final = leave
        self._ready = bound
        self._binding: tuple[Iommufd, int] | None = None

    def call(self, call: AnyCall, received: Received) -> Answer | Opening:
        """Carry out a device call. EINVAL while a cdev is not bound, but for the binding and for what it can do.

        The kernel answers features after the binding only; here a hypervisor may ask before it chooses a container.
        """
        if isinstance(call, calls.BindIommufd):
            return self._bind(call.iommufd)
        if not self._ready and not isinstance(call, calls.GetFeature):
            raise CallRefused(errno.EINVAL, f"Device {self.device.name} is not bound to an iommufd")
        answer = self._address_space_call(call)
        return answer if answer is not None else self._device_call(call, received)

    def _address_space_call(self, call: AnyCall) -> Answer | None:
        match call:
            case calls.AttachPt():
                context, dev_id = self._bound()
                self.device.hardware.attach(context.attach(dev_id, call.pt_id))
            case calls.DetachPt():
                context, dev_id = self._bound()
                context.detach(dev_id)
                self.device.hardware.attach(None)
            case _:
                return None
        return Done()

    def _device_call(self, call: AnyCall, received: Received) -> Answer | Opening:
        match call:
            case calls.Reset():
                self.device.reset()
            case calls.SetEventfds():
                completion, doorbell = eventfd(received.at(call.completion)), eventfd(received.at(call.doorbell))
                self.device.set_eventfds(completion, doorbell)
            case calls.UnmaskIntx():
                self.device.unmask()
            case calls.RegionWrite():
                if not 0 <= call.value <= U64_MAX:
                    raise CallRefused(errno.EINVAL, f"Value {call.value} is no 64-bit register")
                self.device.hardware.write_register(call.offset, call.value)
            case calls.RegionRead():
                return Number(self.device.hardware.read_register(call.offset))
            case calls.GetFeature():
                return self._get_feature(call.feature, probe=call.probe)
            case calls.DmaLoggingStart() | calls.DmaLoggingStop() | calls.DmaLoggingReport():
                return self._log_call(call, received.room)
            case calls.SetDeviceState():
                stream = self._migration().set_state(call.state)
                return Done() if stream is None else Opening(self._next_id(), DataFile(stream))
            case _:
                raise no_such_call(self, call)
        return Done()

    def release(self) -> None:
        """Close the device."""
        self.device.close()
        if self._binding is not None:
            context, dev_id = self._binding
            context.unbind(dev_id)
        self._leave()

    def _bind(self, iommufd: int) -> Answer:
        if self._ready:
            raise CallRefused(errno.EINVAL, f"Device {self.device.name} is bound already")
        context = self._context_of(iommufd)
        dev_id = context.bind(self.device.iommu)
        self._binding, self._ready = (context, dev_id), True
        return Number(dev_id)

    def _bound(self) -> tuple[Iommufd, int]:
        if self._binding is None:
            raise CallRefused(errno.ENOTTY, f"Device {self.device.name} was opened by its group, not by its cdev")
        return self._binding

    def _migration(self) -> MigrationDriver:
        if self.device.migration is None:
            raise CallRefused(errno.ENOTTY, f"Device {self.device.name} has no migration driver")
        return self.device.migration

    def _log(self) -> DmaLog:
        if self.device.log is None:
            raise CallRefused(errno.ENOTTY, f"Device {self.device.name} has no DMA log")
        return self.device.log

    def _log_call(self, call: _LoggingCall, room: int | None) -> Answer:
        log = self._log()
        match call:
            case calls.DmaLoggingStart():
                return Number(log.start(call.page_size, call.ranges))
            case calls.DmaLoggingStop():
                log.stop()
                return Done()
            case calls.DmaLoggingReport():
                return log.report(call.iova, call.length, call.page_size, limit=room)

    def _get_feature(self, feature: Feature, *, probe: bool) -> Answer:
        """Answer for a feature. ENOTTY where the device has none of it, EINVAL to get what can only be probed or set.

        DMA_LOGGING_REPORT can be got, but by a call of its own, since it takes a range.
        """
        if feature in _LOGGING:
            self._log()
            if probe:
                return Done()
            raise CallRefused(errno.EINVAL, f"Feature {feature.name} cannot be got without its arguments")
        migration = self._migration()
        values = {
            Feature.MIGRATION: int(migration.flags),
            Feature.MIG_DEVICE_STATE: int(migration.state),
            Feature.MIG_DATA_SIZE: migration.state_bytes,
        }
        return Done() if probe else Number(values[feature])


class DataFile(OpenFile):
    """A migration data descriptor."""

    def __init__(self, stream: DataStream) -> None:
        self._stream: Final = stream

    def release(self) -> None:
        """Close the descriptor; the stream goes on until the device leaves its state."""

    def call(self, call: AnyCall, received: Received) -> Answer:
        """Read or write device state."""
        match call:
            case calls.GetPrecopyInfo():
                return self._stream.precopy_info()
            case calls.ReadData():
                return Data(memoryview(self._stream.read(call.size)))
            case calls.WriteData():
                return Number(self._stream.write(call.data))
            case _:
                raise no_such_call(self, call)
