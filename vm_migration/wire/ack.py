"""An answer on a bulk stream as bytes: 56 bytes, little-endian.

::

    0        1      2          4         8            24         28         32         40            48         56
    +--------+------+----------+---------+------------+----------+----------+----------+-------------+----------+
    |version | kind | reserved |  round  |  attempt   |  stream  | reserved | sequence | stale pages | checksum |
    +--------+------+----------+---------+------------+----------+----------+----------+-------------+----------+

The checksum is xxh3-64 of the 48 bytes before it; what is reserved is 0.
"""

import struct
from typing import Final
from uuid import UUID

import xxhash

from vm_migration.transfer.frames import Ack, AckKind, Place
from vm_migration.wire.errors import BadChecksum, Truncated, UnknownKind, UnknownVersion
from vm_migration.wire.frame import VERSION

ACK_BYTES: Final = 56
_FIELDS: Final = struct.Struct("<BBHI16sIIQQ")
_CHECKSUM: Final = struct.Struct("<Q")
_KINDS: Final = frozenset(AckKind)


def encode_ack(ack: Ack) -> bytes:
    """Return an answer as one message."""
    place = ack.place
    fields = _FIELDS.pack(
        VERSION,
        ack.kind,
        0,
        place.round,
        place.attempt.bytes,
        place.stream,
        0,
        place.sequence,
        ack.stale_pages,
    )
    return fields + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(fields))


def decode_ack(message: bytes) -> Ack:
    """Return the answer of a message.

    Raises:
        FrameError: The message is not exactly what `encode_ack` writes for some answer.
    """
    if len(message) != ACK_BYTES:
        raise Truncated(f"Answer of {len(message)} bytes, not {ACK_BYTES}")
    fields = message[: _FIELDS.size]
    version, kind, reserved, number, attempt, stream, reserved_too, sequence, stale = _FIELDS.unpack(fields)
    if version != VERSION:
        raise UnknownVersion(f"Answer of version {version}; this program speaks {VERSION}")
    if kind not in _KINDS or reserved or reserved_too:
        raise UnknownKind(f"Answer of kind {kind}, reserved fields {reserved} and {reserved_too}")
    if _CHECKSUM.unpack_from(message, _FIELDS.size)[0] != xxhash.xxh3_64_intdigest(fields):
        raise BadChecksum(f"Answer to frame {sequence} on stream {stream} does not have its checksum")
    return Ack(Place(UUID(bytes=attempt), number, stream, sequence), AckKind(kind), stale)
