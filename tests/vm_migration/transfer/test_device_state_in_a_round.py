"""The devices' state in a round: where it goes, and that both ends count the same."""

from uuid import UUID

import numpy as np
import pytest

from vm_migration.transfer.errors import WrongStream
from vm_migration.transfer.frames import Device, Frame, Place
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.outgoing import OutgoingStream
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.vfio.device_records import DeviceRecord, DeviceSum, RecordKind

ATTEMPT = UUID(int=1)
RECORDS = (DeviceRecord("qat0", RecordKind.SETUP), DeviceRecord("qat0", RecordKind.DATA, memoryview(b"state")))


def image_of(pages: int, streams: int = 1) -> IncomingImage:
    return IncomingImage(np.zeros((pages, 512), dtype=np.uint64), ATTEMPT, streams)


def test_device_state_goes_between_the_pages_and_the_barrier_and_is_counted_at_both_ends() -> None:
    image, dirty, summing = image_of(4), DirtyBitmap.full(4), DeviceSum()
    image.open_round(0, dirty)
    outgoing = OutgoingStream(ATTEMPT, 0).round(0, np.ones((4, 512), dtype=np.uint64), dirty)
    for frame in outgoing.pages():
        assert image.apply(frame, 0) is None
    assert image.apply(outgoing.heartbeat(), 0) is not None
    for record in RECORDS:
        assert image.apply(outgoing.device(record), 0) is None
        summing.add(record)
    assert not outgoing.finished
    assert image.device_bytes_waiting >= len(b"state")
    assert image.apply(outgoing.barrier(), 0) is not None
    assert image.device_total == summing.total
    assert image.take_device_records() == RECORDS
    assert (image.take_device_records(), image.device_bytes_waiting) == ((), 0)
    assert image.whole


def test_device_state_has_one_order_and_so_one_stream() -> None:
    image = image_of(4, streams=2)
    image.open_round(0, DirtyBitmap(4))
    with pytest.raises(WrongStream, match="device"):
        image.apply(Frame(Place(ATTEMPT, 0, 1, 0), Device(RECORDS[0])), 1)
    assert image.device_total == DeviceSum().total


def test_many_small_records_count_as_memory_too() -> None:
    image = image_of(1)
    image.open_round(0, DirtyBitmap(1))
    outgoing = OutgoingStream(ATTEMPT, 0).round(0, np.ones((1, 512), dtype=np.uint64), DirtyBitmap(1))
    for _ in range(100):
        image.apply(outgoing.device(RECORDS[0]), 0)
    assert image.device_bytes_waiting >= 100 * 500
