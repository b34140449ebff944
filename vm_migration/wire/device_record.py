"""A record of device state as the payload of a DEVICE frame.

::

    0      1              2
    +------+--------------+-------------+------+
    | kind | name's bytes | name, UTF-8 | data |
    +------+--------------+-------------+------+

Only DATA has data, and never none; a device has a name. What else decodes means nothing, and is refused.
"""

from vm_migration.wire.errors import NotCanonical, Truncated, UnknownKind
from vmm.vfio.device_records import MAX_NAME_BYTES, MAX_RECORD_BYTES, DeviceRecord, RecordKind

_KINDS = {int(kind): kind for kind in RecordKind}


def encode_record(record: DeviceRecord) -> list[memoryview]:
    """Return the parts of a payload; the data is not copied.

    Raises:
        NotCanonical: The device's name is too long to be written.
    """
    name = record.device.encode()
    if len(name) > MAX_NAME_BYTES:
        raise NotCanonical(f"Device's name of {len(name)} bytes is over {MAX_NAME_BYTES}")
    return [memoryview(bytes((record.kind, len(name))) + name), record.data]


def decode_record(payload: memoryview) -> DeviceRecord:
    """Return the record of a payload; its data is a view into it.

    Raises:
        FrameError: The payload is not exactly what `encode_record` writes for some record.
    """
    if len(payload) < 2 or len(payload) < 2 + payload[1]:
        raise Truncated(f"DEVICE frame of {len(payload)} bytes ends within the device's name")
    kind, start = _KINDS.get(payload[0]), 2 + payload[1]
    if kind is None:
        raise UnknownKind(f"DEVICE frame with a record of kind {payload[0]}")
    try:
        name = str(payload[2:start], "utf-8")
    except UnicodeDecodeError as error:
        raise NotCanonical(f"DEVICE frame's name is no text: {error}") from error
    data = payload[start:]
    if not name or len(data) > MAX_RECORD_BYTES or bool(data) != (kind is RecordKind.DATA):
        raise NotCanonical(f"DEVICE frame with {kind.name} of {name!r} and {len(data)} bytes")
    return DeviceRecord(name, kind, data)
