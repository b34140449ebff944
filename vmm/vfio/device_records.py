"""Device state as it travels: records, each of one device, and what a stream of them adds up to.

A device's records come in this order, among those of other devices (semantics 7.5)::

    SETUP  DATA ... DATA  INITIAL_SENT  DATA ... DATA  END
           '- PRE_COPY: the device works -'   '- STOP_COPY -'

INITIAL_SENT comes once at most, from a device that was in PRE_COPY when its initial data was all read.
"""

import struct
from enum import IntEnum
from typing import Final

import msgspec
import xxhash

MAX_RECORD_BYTES: Final = (1 << 20) - (1 << 12)
"""Data of one record, so that a frame of 1 MiB holds a record with its name."""
MAX_NAME_BYTES: Final = 255

_HEAD: Final = struct.Struct("<BBI")


class RecordKind(IntEnum):
    """What a record says; the numbers are the low digits of QEMU's tags, which have no 0 (semantics 7.5)."""

    END = 1
    """Nothing more comes of this device."""
    SETUP = 3
    """The device's state begins."""
    DATA = 4
    """The next bytes of its state."""
    INITIAL_SENT = 5
    """What the destination needs for its preparations is all sent; the device goes on working."""


class DeviceRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One step of one device's state; only DATA has data, and never none. The data is not copied: it is a view."""

    device: str
    kind: RecordKind
    data: memoryview = memoryview(b"")


class DeviceTotal(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a stream of records came to; two streams of the same records, in the same order, have the same."""

    records: int
    data_bytes: int
    checksum: int


class DeviceSum:
    """Adds records up as they pass: both ends do, at each of their steps, and compare at the end."""

    def __init__(self) -> None:
        self._records = 0
        self._data_bytes = 0
        self._digest: Final = xxhash.xxh3_64()

    def add(self, record: DeviceRecord) -> None:
        """Count the next record."""
        name = record.device.encode()
        self._digest.update(_HEAD.pack(record.kind, len(name), len(record.data)) + name)
        self._digest.update(record.data)
        self._records += 1
        self._data_bytes += len(record.data)

    @property
    def total(self) -> DeviceTotal:
        """What has passed so far; nothing at all has a checksum too."""
        return DeviceTotal(self._records, self._data_bytes, self._digest.intdigest())
