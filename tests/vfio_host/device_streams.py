"""A device's state on its way, and calls that are refused."""

import errno

import pytest

from vfio_host.devices.migration_driver import DataStream, MigrationDriver
from vfio_host.errors import CallRefused
from vfio_host.interface.numbers import DeviceState


def refused(number: int) -> pytest.RaisesExc[CallRefused]:
    return pytest.raises(CallRefused, match=errno.errorcode[number])


def enter(migration: MigrationDriver, state: DeviceState) -> DataStream:
    """Enter a state that opens a stream."""
    stream = migration.set_state(state)
    assert stream is not None
    return stream


def read_all(stream: DataStream, size: int = 1 << 20) -> bytes:
    parts = []
    while part := stream.read(size):
        parts.append(part)
    return b"".join(parts)


def run_from(migration: MigrationDriver, data: bytes, piece: int = 1 << 20) -> None:
    """Load a state, so many bytes at a time, and run."""
    stream = enter(migration, DeviceState.RESUMING)
    for start in range(0, len(data), piece):
        stream.write(data[start : start + piece])
    assert migration.set_state(DeviceState.RUNNING) is None
