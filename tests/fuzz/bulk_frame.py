"""A frame of a bulk stream (vm_migration.wire.frame)."""

import numpy as np
import xxhash

from tests.fuzz.target import Target, same
from tests.vm_migration.wire.test_bulk_frame import compressed_body, pages_body, place_zero, runs
from vm_migration.transfer.frames import (
    Barrier,
    Body,
    Codec,
    CompressedPages,
    Device,
    Digests,
    Frame,
    Heartbeat,
    Place,
    Zeros,
)
from vm_migration.wire.errors import FrameError
from vm_migration.wire.frame import HEADER_BYTES, decode, encode
from vmm.vfio.device_records import DeviceRecord, RecordKind

_LENGTH, _CHECKSUM = slice(52, 56), slice(56, 64)


def _bodies() -> dict[str, Body]:
    deltas = compressed_body([3, 4, 9], b"changes", Codec.ZSTD, digested=True)
    return {
        "pages": pages_body([7], digested=False),
        "pages-digested": pages_body([7, 8, 11], digested=True),
        "lz4": compressed_body([1, 2, 3], b"short", Codec.LZ4, digested=False),
        "deltas": CompressedPages(deltas.runs, deltas.codec, deltas.data, deltas.digests, np.array([1, 2, 2], "<u4")),
        "zeros": Zeros(runs([5, 6, 900]), digested=True),
        "digests": Digests(runs([1, 2]), np.array([5, 6], "<u8")),
        "device": Device(DeviceRecord("qat0", RecordKind.DATA, memoryview(b"state"))),
        "barrier": Barrier(cut=True),
        "heartbeat": Heartbeat(),
    }


def _read(data: bytes) -> None:
    same(encode(decode(data)), data)


def mended(data: bytes) -> bytes:
    """Return a frame whose length and checksum are those of what follows its header."""
    if len(data) < HEADER_BYTES:
        return data
    frame = bytearray(data)
    payload = data[HEADER_BYTES:]
    frame[_LENGTH] = len(payload).to_bytes(4, "little")
    seed = xxhash.xxh3_64_intdigest(bytes(frame[: _CHECKSUM.start]))
    frame[_CHECKSUM] = xxhash.xxh3_64_intdigest(payload, seed=seed).to_bytes(8, "little")
    return bytes(frame)


_PLACE = Place(place_zero().attempt, 3, 0, 17)
TARGET = Target(
    "bulk_frame",
    _read,
    refusals=(FrameError,),
    seeds={name: encode(Frame(_PLACE, body)) for name, body in _bodies().items()},
    mended=mended,
)
