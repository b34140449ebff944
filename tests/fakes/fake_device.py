"""A device of any size at a host without processes: its states are the kernel's, its data is what a test lays out."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field

from vfio_host.devices.migration_state import path
from vfio_host.errors import CallRefused
from vfio_host.interface.answers import Answer, Data, Done, Number, PrecopyInfo
from vfio_host.interface.calls import AnyCall, GetFeature, GetPrecopyInfo, ReadData, Reset, SetDeviceState, WriteData
from vfio_host.interface.numbers import DeviceState, Feature, MigrationFlags
from vmm.vfio.device import VfioDevice
from vmm.vfio.host_port import HostCallFailed, OpenObject

ALL = MigrationFlags.STOP_COPY | MigrationFlags.P2P | MigrationFlags.PRE_COPY
_SAVING = (DeviceState.PRE_COPY, DeviceState.PRE_COPY_P2P, DeviceState.STOP_COPY)


@dataclass
class FakeDevice:
    """Implements `vmm.vfio.host_port.Descriptor`. Its state is `initial`, then `dirty`, then `rest`."""

    name: str = "fake0"
    flags: MigrationFlags = ALL
    initial: bytes = b""
    dirty: bytes = b""
    rest: bytes = b""
    loaded: bytes = b""
    """What was written into it by the last RESUMING that came to an end."""
    state: DeviceState = DeviceState.RUNNING
    refused: dict[DeviceState, int] = field(default_factory=dict)
    """Errnos of targets; ERROR stands for the reset."""
    refused_features: dict[Feature, int] = field(default_factory=dict)
    takes: int = 1 << 40
    """How many bytes one write takes at most."""
    log: list[str] = field(default_factory=list)
    """States that were asked for, in order, of all devices that share it."""
    position: int = 0

    @property
    def device(self) -> VfioDevice:
        """Return it as the hypervisor holds it."""
        return VfioDevice(self.name, self)

    @property
    def readable(self) -> int:
        """How far the stream can be read now."""
        working = len(self.initial) + len(self.dirty)
        return working + len(self.rest) if self.state is DeviceState.STOP_COPY else working

    def data(self, start: int, size: int) -> bytes:
        return (self.initial + self.dirty + self.rest)[start : min(start + size, self.readable)]

    def batch(self, calls: Sequence[AnyCall], descriptors: Sequence[int] = ()) -> Sequence[Answer]:
        return [self.call(call, descriptors) for call in calls]

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        del descriptors
        match call:
            case GetFeature(feature=feature):
                if feature in self.refused_features:
                    raise HostCallFailed(call, self.refused_features[feature])
                left = max(len(self.initial) + len(self.dirty) + len(self.rest) - self.position, 0)
                values = {
                    Feature.MIGRATION: int(self.flags),
                    Feature.MIG_DEVICE_STATE: int(self.state),
                    Feature.MIG_DATA_SIZE: left,
                }
                return Number(values[feature])
            case Reset():
                self._ask("reset", call, DeviceState.ERROR)
                self.state = DeviceState.RUNNING
                return Done()
        raise HostCallFailed(call, errno.ENOTTY)

    def open(self, call: AnyCall) -> OpenObject | None:
        assert isinstance(call, SetDeviceState)
        self._ask(call.state.name, call, call.state)
        try:
            steps = path(self.state, call.state, self.flags)
        except CallRefused as error:
            raise HostCallFailed(call, error.errno) from error
        before, self.state = self.state, steps[-1]
        fresh = self.state is DeviceState.RESUMING or (self.state in _SAVING and before not in _SAVING)
        if fresh:
            self.position, self.loaded = 0, b""
        return OpenObject(1, FakeData(self)) if fresh else None

    def close(self) -> None:
        pass

    def _ask(self, what: str, call: AnyCall, target: DeviceState) -> None:
        self.log.append(f"{self.name} {what}")
        if target in self.refused:
            raise HostCallFailed(call, self.refused[target])


@dataclass
class FakeData:
    """Implements `vmm.vfio.host_port.Descriptor` for the data of a device."""

    of: FakeDevice

    def batch(self, calls: Sequence[AnyCall], descriptors: Sequence[int] = ()) -> Sequence[Answer]:
        return [self.call(call, descriptors) for call in calls]

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        del descriptors
        device = self.of
        match call:
            case ReadData(size=size):
                data = device.data(device.position, size)
                if not data and device.state is not DeviceState.STOP_COPY:
                    raise HostCallFailed(call, errno.ENOMSG)
                device.position += len(data)
                return Data(memoryview(data))
            case WriteData(data=data):
                taken = data[: device.takes]
                device.loaded += taken
                return Number(len(taken))
            case GetPrecopyInfo():
                if device.state not in (DeviceState.PRE_COPY, DeviceState.PRE_COPY_P2P):
                    raise HostCallFailed(call, errno.EINVAL)
                initial = max(len(device.initial) - device.position, 0)
                return PrecopyInfo(initial, device.readable - device.position - initial)
        raise HostCallFailed(call, errno.ENOTTY)

    def open(self, call: AnyCall) -> OpenObject | None:
        raise HostCallFailed(call, errno.ENOTTY)

    def close(self) -> None:
        pass
