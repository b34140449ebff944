"""The accelerator's VFIO migration driver: states, and the data descriptors that state moves through.

::

    PRE_COPY   ReadData: the setup part, then ENOMSG     STOP_COPY   ReadData: the rest of the block, then empty
    RESUMING   WriteData: at most STATE_BYTES; the block is checked and taken over on RESUMING -> STOP

A stream that was begun in PRE_COPY goes on in STOP_COPY where it was, so a destination that writes everything it got
has written one block. RUNNING_P2P suspends the device wholly (semantics 7.10); it works in RUNNING and PRE_COPY.
"""

import errno
from typing import Final

from vfio_host.devices.migration_state import path
from vfio_host.devices.qat import Qat
from vfio_host.devices.qat_state import SETUP_BYTES, check_setup, setup_part
from vfio_host.errors import CallRefused, StateInvalid
from vfio_host.interface.calls import PrecopyInfo
from vfio_host.interface.numbers import DeviceState, MigrationFlags
from vfio_host.interface.qat import STATE_BYTES

FLAGS: Final = MigrationFlags.STOP_COPY | MigrationFlags.P2P | MigrationFlags.PRE_COPY
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

    def write(self, data: bytes) -> int:
        """Write device state; return how much was taken. EBADF on a stream for reading."""
        raise CallRefused(errno.EBADF, f"Stream cannot be written ({len(data)} bytes given)")

    def _check_open(self) -> None:
        if self._closed:
            raise CallRefused(errno.ENODEV, "Device has left the state that this stream was for")


class SaveStream(DataStream):
    """The state block being read: the setup part only, until the device stands still."""

    def __init__(self) -> None:
        super().__init__()
        self._position = 0
        self._block: bytes | None = None

    def complete(self, block: bytes) -> None:
        """Give the rest of the block: the device is in STOP_COPY."""
        self._block = block

    def precopy_info(self) -> PrecopyInfo:
        """Return what is left of the setup part; EINVAL outside PRE_COPY."""
        self._check_open()
        if self._block is not None:
            raise CallRefused(errno.EINVAL, "Device is not in PRE_COPY")
        return PrecopyInfo(initial_bytes=SETUP_BYTES - self._position, dirty_bytes=0)

    def read(self, size: int) -> bytes:
        """Return what comes next; ENOMSG for nothing now (PRE_COPY), empty at the end (STOP_COPY)."""
        self._check_open()
        if size <= 0:
            raise CallRefused(errno.EINVAL, f"Read of {size} bytes")
        source = setup_part() if self._block is None else self._block
        data = source[self._position : self._position + size]
        if not data and self._block is None:
            raise CallRefused(errno.ENOMSG, "Nothing to read while the device runs")
        self._position += len(data)
        return data


class LoadStream(DataStream):
    """The state block being written."""

    def __init__(self) -> None:
        super().__init__()
        self._block = bytearray()

    def write(self, data: bytes) -> int:
        """Take the next bytes; ENOMEM past STATE_BYTES, EINVAL when the setup part is another device's."""
        self._check_open()
        if len(self._block) + len(data) > STATE_BYTES:
            raise CallRefused(errno.ENOMEM, f"State is longer than {STATE_BYTES} bytes")
        try:
            check_setup(bytes(self._block) + data)
        except StateInvalid as error:
            raise CallRefused(errno.EINVAL, str(error)) from error
        self._block += data
        return len(data)

    def block(self) -> bytes:
        """Return what has been written."""
        return bytes(self._block)


class MigrationDriver:
    """The migration side of one accelerator."""

    def __init__(self, device: Qat) -> None:
        self._device: Final = device
        self._state = DeviceState.RUNNING
        self._stream: DataStream | None = None

    @property
    def flags(self) -> MigrationFlags:
        """What the device's migration supports."""
        return FLAGS

    @property
    def state(self) -> DeviceState:
        """The device's migration state."""
        return self._state

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
        for state in path(self._state, target, FLAGS)[1:]:
            self._take_arc(state)
        return self._stream if self._stream is not before else None

    def reset(self) -> None:
        """VFIO_DEVICE_RESET: to RUNNING, with an empty device; an open data stream ends."""
        self._end_stream()
        self._device.reset()
        self._state = DeviceState.RUNNING

    def _take_arc(self, state: DeviceState) -> None:
        before = self._state
        if before is DeviceState.RESUMING:
            self._load()
        if before in _SAVING and state not in _SAVING:
            self._end_stream()
        if state is DeviceState.RESUMING:
            self._stream = LoadStream()
        elif state in _SAVING and before not in _SAVING:
            self._stream = SaveStream()
        if state is DeviceState.STOP_COPY and isinstance(self._stream, SaveStream):
            self._stream.complete(self._device.save())
        self._state = state
        if state in _RUNNING and before not in _RUNNING:
            self._device.resume()

    def _load(self) -> None:
        written = self._stream.block() if isinstance(self._stream, LoadStream) else b""
        try:
            self._device.load(written)
        except StateInvalid as error:
            raise CallRefused(errno.EINVAL, str(error)) from error
        self._end_stream()

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
