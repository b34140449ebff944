"""A device's VFIO migration driver: states, and the data descriptors that state moves through.

::

    PRE_COPY   ReadData: what the device can tell while it runs, then ENOMSG    STOP_COPY   ReadData: the rest, then
    RESUMING   WriteData; checked and taken over on RESUMING -> STOP                        empty

A stream that was begun in PRE_COPY goes on in STOP_COPY where it was, so a destination that writes everything it got
has written one state. What there is to read and to check is the device's (hardware.MigratableHardware); its flags say
which states there are. In RUNNING_P2P and PRE_COPY_P2P a device starts no access of its own, so it does not step; it
works in RUNNING and PRE_COPY.

A transition that fails leaves the device in RESUMING, where only a reset or the missing rest of the state leads on;
no transition of these devices ends in ERROR.
"""

import errno
from typing import Final

from vfio_host.devices.hardware import MAX_READ, MigratableHardware, StateSink, StateSource
from vfio_host.devices.migration_state import path
from vfio_host.errors import CallRefused, StateInvalid
from vfio_host.interface.calls import PrecopyInfo
from vfio_host.interface.numbers import DeviceState, MigrationFlags

_RUNNING: Final = frozenset({DeviceState.RUNNING, DeviceState.PRE_COPY})
_PRE_COPY: Final = frozenset({DeviceState.PRE_COPY, DeviceState.PRE_COPY_P2P})
_SAVING: Final = _PRE_COPY | {DeviceState.STOP_COPY}


class DataStream:
    """What a migration data descriptor stands for; ENODEV once the device has left the states that it is for."""

    def __init__(self) -> None:
        self._closed = False

    def close(self) -> None:
        """End the stream."""
        self._closed = True

    def precopy_info(self) -> PrecopyInfo:
        """VFIO_MIG_GET_PRECOPY_INFO. ENOTTY where there is no such thing."""
        raise CallRefused(errno.ENOTTY, "Stream has no pre-copy information")

    def read(self, size: int) -> bytes:
        """Read device state. EBADF on a stream for writing."""
        raise CallRefused(errno.EBADF, f"Stream cannot be read ({size} bytes asked)")

    def write(self, data: bytes | memoryview) -> int:
        """Write device state; return how much was taken. EBADF on a stream for reading."""
        raise CallRefused(errno.EBADF, f"Stream cannot be written ({len(data)} bytes given)")

    def _check_open(self) -> None:
        if self._closed:
            raise CallRefused(errno.ENODEV, "Device has left the state that this stream was for")


class SaveStream(DataStream):
    """A state being read: what there is while the device runs, and all that is left once it stands still."""

    def __init__(self, source: StateSource) -> None:
        super().__init__()
        self._source: Final = source
        self._stopped = False

    def stop(self) -> None:
        """Let the rest be read: the device is in STOP_COPY."""
        self._stopped = True
        self._source.stop()

    def precopy_info(self) -> PrecopyInfo:
        """Return what there is to read; EINVAL outside PRE_COPY."""
        self._check_open()
        if self._stopped:
            raise CallRefused(errno.EINVAL, "Device is not in PRE_COPY")
        return self._source.precopy_info()

    def read(self, size: int) -> bytes:
        """Return what comes next, MAX_READ at most; ENOMSG for nothing now (PRE_COPY), empty at the end."""
        self._check_open()
        if size <= 0:
            raise CallRefused(errno.EINVAL, f"Read of {size} bytes")
        data = self._source.read(min(size, MAX_READ))
        if not data and not self._stopped:
            raise CallRefused(errno.ENOMSG, "Nothing to read while the device runs")
        return data


class LoadStream(DataStream):
    """A state being written."""

    def __init__(self, sink: StateSink) -> None:
        super().__init__()
        self._sink: Final = sink

    def write(self, data: bytes | memoryview) -> int:
        """Take the next bytes; EINVAL when they are no state of this device, ENOMEM when there are too many."""
        self._check_open()
        try:
            self._sink.write(data)
        except StateInvalid as error:
            raise CallRefused(errno.EINVAL, str(error)) from error
        return len(data)

    def finish(self) -> None:
        """Have the device take over what was written. EINVAL when it is partial or invalid."""
        try:
            self._sink.finish()
        except StateInvalid as error:
            raise CallRefused(errno.EINVAL, str(error)) from error


class MigrationDriver:
    """The migration side of one device."""

    def __init__(self, device: MigratableHardware, *, p2p: bool = True) -> None:
        """Drive a device; without `p2p` this driver does not know those states, whatever the device could do."""
        self._device: Final = device
        self.flags: Final = device.flags if p2p else device.flags & ~MigrationFlags.P2P
        self._state = DeviceState.RUNNING
        self._stream: DataStream | None = None

    @property
    def state(self) -> DeviceState:
        """The device's migration state."""
        return self._state

    @property
    def state_bytes(self) -> int:
        """How many bytes of state a stop would leave to be read, as of now."""
        return self._device.state_bytes

    @property
    def running(self) -> bool:
        """Tell whether the device may work and do DMA."""
        return self._state in _RUNNING

    def set_state(self, target: DeviceState) -> DataStream | None:
        """Go to a state by the kernel's arcs; return the data stream that is new and open when it is reached.

        Raises:
            CallRefused: EINVAL when no way leads there (nothing changed), or when the state written while RESUMING
                is partial or invalid: the device stays in RESUMING.
        """
        before = self._stream
        for state in path(self._state, target, self.flags)[1:]:
            self._take_arc(state)
        return self._stream if self._stream is not before else None

    def reset(self) -> None:
        """VFIO_DEVICE_RESET: to RUNNING, with an empty device; an open data stream ends."""
        self._end_stream()
        self._device.reset()
        self._state = DeviceState.RUNNING

    def _take_arc(self, state: DeviceState) -> None:
        before = self._state
        if isinstance(self._stream, LoadStream):
            self._stream.finish()
            self._end_stream()
        if before in _SAVING and state not in _SAVING:
            self._end_stream()
        if state is DeviceState.RESUMING:
            self._stream = LoadStream(self._device.load())
        elif state in _SAVING and before not in _SAVING:
            self._stream = SaveStream(self._device.save())
        if state is DeviceState.STOP_COPY and isinstance(self._stream, SaveStream):
            self._stream.stop()
        self._state = state
        if state in _RUNNING and before not in _RUNNING:
            self._device.resume()

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
