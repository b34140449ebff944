"""One passed-through device, as the hypervisor holds it: registers, interrupts, migration."""

import errno
from typing import Final

from vfio_host.interface.answers import Answer, Data, Number, PrecopyInfo
from vfio_host.interface.calls import (
    AnyCall,
    GetFeature,
    GetPrecopyInfo,
    GroupGetDevice,
    ReadData,
    RegionRead,
    RegionWrite,
    Reset,
    SetDeviceState,
    SetEventfds,
    UnmaskIntx,
    WriteData,
)
from vfio_host.interface.numbers import VFIO_CDEV, VFIO_GROUP, DeviceState, Feature, MigrationFlags
from vmm.vfio.host_port import Descriptor, HostCallFailed, HostPort

ASSUMED_STATE_BYTES: Final = 100 << 30
"""What QEMU assumes of a device whose MIG_DATA_SIZE fails, so that no standstill fits it by mistake (semantics 7.4)."""


class VfioDevice:
    """An open device; its container is attached apart."""

    def __init__(self, name: str, descriptor: Descriptor) -> None:
        self.name: Final = name
        self.descriptor: Final = descriptor
        self.flags: Final = self._migration_flags()
        self._data: Descriptor | None = None

    @classmethod
    def open_cdev(cls, host: HostPort, name: str) -> "VfioDevice":
        """Open a device for iommufd.

        Raises:
            HostCallFailed: The host has no such device.
        """
        return cls(name, host.open(VFIO_CDEV + name).descriptor)

    @classmethod
    def open_in_group(cls, group: Descriptor, name: str) -> "VfioDevice":
        """Open a device of a group whose container is set."""
        opened = group.open(GroupGetDevice(name=name))
        if opened is None:
            raise HostCallFailed(GroupGetDevice(name=name), errno.EPROTO)
        return cls(name, opened.descriptor)

    def set_eventfds(self, completion: int, doorbell: int) -> None:
        """Give the device its interrupt and its doorbell."""
        self.descriptor.call(SetEventfds(completion=0, doorbell=1), (completion, doorbell))

    def unmask(self) -> None:
        """Let the device's line be raised again; what is due comes at once."""
        self.descriptor.call(UnmaskIntx())

    def read(self, offset: int) -> int:
        """Read a register."""
        return _number(self.descriptor.call(RegionRead(offset=offset)), RegionRead(offset=offset))

    def write(self, offset: int, value: int) -> None:
        """Write a register."""
        self.descriptor.call(RegionWrite(offset=offset, value=value))

    @property
    def state(self) -> DeviceState:
        """The device's migration state, as the host tells it."""
        call = GetFeature(feature=Feature.MIG_DEVICE_STATE)
        return DeviceState(_number(self.descriptor.call(call), call))

    def set_state(self, state: DeviceState) -> None:
        """Move the device to a migration state, along the arcs that the host knows.

        Raises:
            HostCallFailed: The device is in some state that `state` tells.
        """
        opened = self.descriptor.open(SetDeviceState(state=state))
        if opened is not None:
            self.close_data()
            self._data = opened.descriptor
        elif state in (DeviceState.RUNNING, DeviceState.STOP, DeviceState.RUNNING_P2P):
            self.close_data()

    def stop_copy_bytes(self) -> int:
        """Return how much state a stop would leave to be read; ASSUMED_STATE_BYTES where the host cannot tell."""
        call = GetFeature(feature=Feature.MIG_DATA_SIZE)
        try:
            return _number(self.descriptor.call(call), call)
        except HostCallFailed:
            return ASSUMED_STATE_BYTES

    def precopy_info(self) -> PrecopyInfo:
        """Return what can be read while the device works; nothing where the host does not tell (semantics 7.4)."""
        try:
            answer = self._data_descriptor().call(GetPrecopyInfo())
        except HostCallFailed:
            return PrecopyInfo(initial_bytes=0, dirty_bytes=0)
        if not isinstance(answer, PrecopyInfo):
            raise HostCallFailed(GetPrecopyInfo(), errno.EPROTO)
        return answer

    def read_data(self, size: int) -> memoryview | None:
        """Read the next bytes of the state: none at the end (STOP_COPY), None for nothing now (PRE_COPY).

        Raises:
            HostCallFailed: The state is incomplete and of no use.
        """
        call = ReadData(size=size)
        try:
            answer = self._data_descriptor().call(call)
        except HostCallFailed as error:
            if error.errno == errno.ENOMSG:
                return None
            raise
        if not isinstance(answer, Data) or len(answer.data) > size:
            raise HostCallFailed(call, errno.EPROTO)
        return answer.data

    def write_data(self, data: memoryview) -> None:
        """Write the next bytes of a state while RESUMING.

        Raises:
            HostCallFailed: The device refused them, or took only a part: what it has is of no use.
        """
        call = WriteData(data=data)
        if _number(self._data_descriptor().call(call), call) != len(data):
            raise HostCallFailed(call, errno.EIO)

    def close_data(self) -> None:
        """Close the migration data descriptor, where one is open."""
        if self._data is not None:
            self._data.close()
            self._data = None

    def reset(self) -> None:
        """VFIO_DEVICE_RESET."""
        self.close_data()
        self.descriptor.call(Reset())

    def _data_descriptor(self) -> Descriptor:
        if self._data is None:
            raise AssertionError(f"Device {self.name} has no migration data descriptor in this state")
        return self._data

    def _migration_flags(self) -> MigrationFlags:
        call = GetFeature(feature=Feature.MIGRATION)
        try:
            return MigrationFlags(_number(self.descriptor.call(call), call))
        except HostCallFailed as error:
            if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
                return MigrationFlags(0)
            raise


def open_group(host: HostPort, name: str) -> Descriptor:
    """Open the type1 group of a device."""
    return host.open(VFIO_GROUP + name).descriptor


def _number(answer: Answer, call: AnyCall) -> int:
    if not isinstance(answer, Number):
        raise HostCallFailed(call, errno.EPROTO)
    return answer.value
