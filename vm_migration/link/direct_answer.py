"""What a destination writes on a direct stream: answers as on any bulk stream, and at the end why it ends it.

::

    answer     56 bytes, vm_migration.wire.ack; the first is its version, which is never 0
    refusal    0: u8   reserved: u8   length: u16   JSON {kind, code, message, hint}
"""

import struct
from typing import Final

import msgspec

from vm_migration.errors import AttemptFailed, MigrationError
from vm_migration.link.direct_wire import Wire
from vm_migration.link.status import error_of_kind, kind_of_error
from vm_migration.wire.ack import ACK_BYTES

_HEAD: Final = struct.Struct("<BBH")
_REFUSAL: Final = 0


class _Refusal(msgspec.Struct, frozen=True):
    kind: str
    code: str
    message: str
    hint: str


def encode_refusal(error: MigrationError) -> bytes:
    """Return an error as the last thing that is written."""
    text = msgspec.json.encode(_Refusal(*kind_of_error(error)))
    return _HEAD.pack(_REFUSAL, 0, len(text)) + text


def read_answer(wire: Wire) -> bytes | None:
    """Wait for the next answer; None where the peer closed the stream.

    Raises:
        MigrationError: Why the peer ended the stream.
        OSError: The connection broke.
    """
    message = memoryview(bytearray(ACK_BYTES))
    if not wire.read_exactly(message[: _HEAD.size]):
        return None
    if message[0] != _REFUSAL:
        _rest(wire, message[_HEAD.size :])
        return message.tobytes()
    text = memoryview(bytearray(_HEAD.unpack(message[: _HEAD.size])[2]))
    _rest(wire, text)
    try:
        told = msgspec.json.decode(text, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AttemptFailed("bad-answer", f"A refusal that is none came: {error}", "Look at its log") from None
    raise error_of_kind(told.kind, told.code, told.message, told.hint)


def _rest(wire: Wire, into: memoryview) -> None:
    if len(into) and not wire.read_exactly(into):
        raise ConnectionResetError("Closed in the middle of an answer")
