"""A record of device state in a frame (vm_migration.wire.device_record)."""

from tests.fuzz.target import Target, same
from vm_migration.wire.device_record import decode_record, encode_record
from vm_migration.wire.errors import FrameError
from vmm.vfio.device_records import DeviceRecord, RecordKind


def _read(data: bytes) -> None:
    same(b"".join(encode_record(decode_record(memoryview(data)))), data)


def _seed(record: DeviceRecord) -> bytes:
    return b"".join(encode_record(record))


TARGET = Target(
    "device_record",
    _read,
    refusals=(FrameError,),
    seeds={
        "setup": _seed(DeviceRecord("nic0", RecordKind.SETUP)),
        "data": _seed(DeviceRecord("0000:3a:00.1", RecordKind.DATA, memoryview(b"NIC1" + bytes(60)))),
        "end": _seed(DeviceRecord("nic0", RecordKind.END)),
    },
)
