"""An answer on a bulk stream (vm_migration.wire.ack)."""

import xxhash

from tests.fuzz.target import Target, same
from tests.vm_migration.wire.test_bulk_frame import ATTEMPT
from vm_migration.transfer.frames import Ack, AckKind, Place
from vm_migration.wire.ack import ACK_BYTES, decode_ack, encode_ack
from vm_migration.wire.errors import FrameError


def _read(data: bytes) -> None:
    same(encode_ack(decode_ack(data)), data)


def _mended(data: bytes) -> bytes:
    fields = data[: ACK_BYTES - 8]
    return fields + xxhash.xxh3_64_intdigest(fields).to_bytes(8, "little")


TARGET = Target(
    "acknowledgement",
    _read,
    refusals=(FrameError,),
    seeds={kind.name.lower(): encode_ack(Ack(Place(ATTEMPT, 4, 1, 77), kind, 3)) for kind in AckKind},
    mended=_mended,
)
