"""Where the stream of each device's state stands, at both ends (semantics 7.4 to 7.7).

::

    source       PRE_COPY   data until ENOMSG; INITIAL_SENT once its initial bytes are read
                 STOP_COPY  data until it is empty, then END
    destination  RUNNING --SETUP--> RESUMING  DATA, written as it comes  --END--> whole --finish--> STOP

The readers and writers of a machine's devices take turns; what each of them does to its device is bounded by the
caller's budget. A stream that failed is of no use any more: the attempt ends, and the next one begins with new ones.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from vfio_host.interface.calls import ReadData
from vfio_host.interface.numbers import DeviceState, MigrationFlags
from vmm.vfio.device import VfioDevice
from vmm.vfio.device_records import MAX_RECORD_BYTES, DeviceRecord, DeviceSum, DeviceTotal, RecordKind
from vmm.vfio.host_port import HostCallFailed

_PRE_COPY: Final = (DeviceState.PRE_COPY, DeviceState.PRE_COPY_P2P)


class DeviceStreamRefused(Exception):
    """Records are not a stream of these devices' state; the machine that they were for must not be run."""


@dataclass(frozen=True, slots=True)
class PendingState:
    """How much device state is left, in bytes, as the host estimates it (semantics 7.6)."""

    precopy: int
    """What can be read while the devices work: initial and dirty bytes."""
    stop_copy: int
    """What only a stop lets be read, beside that."""

    @property
    def total(self) -> int:
        """What a stop at this moment would leave to be moved."""
        return self.precopy + self.stop_copy


@dataclass(frozen=True, slots=True)
class DeviceRead:
    """What a look at the source's devices found."""

    records: tuple[DeviceRecord, ...]
    complete: bool
    """The END of every device has been handed out: there will be no more."""
    pending: PendingState
    initial_pending: tuple[str, ...]
    """Devices in pre-copy whose INITIAL_SENT has not been handed out."""


class DeviceReaders:
    """The source's side: the streams of all devices that can migrate."""

    def __init__(self, devices: Sequence[VfioDevice]) -> None:
        self._readers: Final = [_Reader(device) for device in devices if MigrationFlags.STOP_COPY in device.flags]
        self._turn = 0
        self._sum: Final = DeviceSum()

    @property
    def complete(self) -> bool:
        """Whether the END of every device has been handed out."""
        return all(reader.ended for reader in self._readers)

    @property
    def total(self) -> DeviceTotal:
        """What has been handed out."""
        return self._sum.total

    def read(self, budget: int) -> DeviceRead:
        """Return the records of at most `budget` bytes of data, of each device in turn.

        Raises:
            HostCallFailed: A device's state is incomplete; its stream is of no use.
        """
        records: list[DeviceRecord] = []
        left = budget
        for reader in self._in_turn():
            found = reader.read(left)
            records += found
            left -= sum(len(record.data) for record in found)
            if left <= 0:
                break
        for record in records:
            self._sum.add(record)
        waiting = tuple(reader.name for reader in self._readers if reader.initial_pending)
        return DeviceRead(tuple(records), self.complete, self.pending(), waiting)

    def pending(self) -> PendingState:
        """Return how much is left of all devices together."""
        parts = [reader.pending() for reader in self._readers]
        return PendingState(sum(part.precopy for part in parts), sum(part.stop_copy for part in parts))

    def _in_turn(self) -> "list[_Reader]":
        """Return all readers; who was first last time is last now, so that one device's haste starves no other."""
        if not self._readers:
            return []
        order = self._readers[self._turn :] + self._readers[: self._turn]
        self._turn = (self._turn + 1) % len(self._readers)
        return order


class DeviceWriters:
    """The destination's side."""

    def __init__(self, devices: Sequence[VfioDevice]) -> None:
        self._writers: Final = {
            device.name: _Writer(device) for device in devices if MigrationFlags.STOP_COPY in device.flags
        }
        self._sum: Final = DeviceSum()

    @property
    def total(self) -> DeviceTotal:
        """What has been written."""
        return self._sum.total

    def write(self, records: Sequence[DeviceRecord]) -> None:
        """Write records in their order.

        Raises:
            DeviceStreamRefused: A record does not follow from those before it, or is of no device here.
            HostCallFailed: A device refused its data.
        """
        for record in records:
            writer = self._writers.get(record.device)
            if writer is None:
                raise DeviceStreamRefused(f"State is of device {record.device}, which this machine does not have")
            writer.write(record)
            self._sum.add(record)

    def require_whole(self, sent: DeviceTotal) -> None:
        """Check that what was written is what the source handed out, to its end.

        Raises:
            DeviceStreamRefused: It is not.
        """
        missing = [name for name, writer in self._writers.items() if not writer.ended]
        if missing:
            raise DeviceStreamRefused(f"State of devices {missing} has not come to its end")
        if sent != self.total:
            raise DeviceStreamRefused(f"Device state that came ({self.total}) is not what was sent ({sent})")

    def finish(self) -> None:
        """Bring every device from RESUMING to STOP, where its driver looks at what it was given; once is enough.

        Raises:
            HostCallFailed: A device refused its state.
        """
        for writer in self._writers.values():
            writer.finish()


class _Left(Enum):
    """What follows the data that was read."""

    MORE = auto()
    LATER = auto()
    """Nothing now; the device works on."""
    NONE = auto()


class _Reader:
    """One device's stream at the source."""

    def __init__(self, device: VfioDevice) -> None:
        self.name: Final = device.name
        self.ended = False
        self._device: Final = device
        self._begun = False
        self._initial_sent = False

    @property
    def initial_pending(self) -> bool:
        """Whether the device is in pre-copy and its destination has not all that it needs for its preparations."""
        return not self._initial_sent and self._device.state in _PRE_COPY

    def pending(self) -> PendingState:
        """Return what is left."""
        if self.ended:
            return PendingState(0, 0)
        stop_size = self._device.stop_copy_bytes()
        if self._device.state not in _PRE_COPY:
            return PendingState(0, stop_size)
        info = self._device.precopy_info()
        precopy = info.initial_bytes + info.dirty_bytes
        return PendingState(precopy, max(stop_size - precopy, 0))

    def read(self, budget: int) -> list[DeviceRecord]:
        """Return the records of at most `budget` bytes; none while the device's state cannot be read."""
        state = self._device.state
        if self.ended or (state is not DeviceState.STOP_COPY and state not in _PRE_COPY):
            return []
        records = [] if self._begun else [DeviceRecord(self.name, RecordKind.SETUP)]
        self._begun = True
        data, left = self._data(budget)
        records += data
        if state is DeviceState.STOP_COPY:
            if left is _Left.NONE:
                self.ended = True
                records.append(DeviceRecord(self.name, RecordKind.END))
            elif left is _Left.LATER:
                raise HostCallFailed(ReadData(size=budget), errno.ENOMSG)
        elif not self._initial_sent and self._device.precopy_info().initial_bytes == 0:
            self._initial_sent = True
            records.append(DeviceRecord(self.name, RecordKind.INITIAL_SENT))
        return records

    def _data(self, budget: int) -> tuple[list[DeviceRecord], _Left]:
        """Return data for a budget, and what the device said when it was over."""
        records: list[DeviceRecord] = []
        while budget > 0:
            data = self._device.read_data(min(budget, MAX_RECORD_BYTES))
            if not data:
                return records, _Left.LATER if data is None else _Left.NONE
            records.append(DeviceRecord(self.name, RecordKind.DATA, data))
            budget -= len(data)
        return records, _Left.MORE


class _Writer:
    """One device's stream at the destination."""

    def __init__(self, device: VfioDevice) -> None:
        self.ended = False
        self._device: Final = device
        self._begun = False
        self._initial_sent = False
        self._finished = False

    def write(self, record: DeviceRecord) -> None:
        """Take the next record."""
        if self.ended or self._begun == (record.kind is RecordKind.SETUP):
            raise DeviceStreamRefused(f"{record.kind.name} of device {record.device} does not follow what came before")
        match record.kind:
            case RecordKind.SETUP:
                self._device.set_state(DeviceState.RESUMING)
                self._begun = True
            case RecordKind.DATA:
                self._device.write_data(record.data)
            case RecordKind.INITIAL_SENT:
                if self._initial_sent:
                    raise DeviceStreamRefused(f"Device {record.device} has sent its initial data twice")
                self._initial_sent = True
            case RecordKind.END:
                self.ended = True

    def finish(self) -> None:
        """Go from RESUMING to STOP."""
        if not self._finished:
            self._device.set_state(DeviceState.STOP)
            self._finished = True
