"""What can become of a message of a bulk stream on its way: a pure function of chance. None of it may be taken.

::

    truncated    its end is missing
    lengthened   there is more of it than was written, and its header says so
    oversized    its header says more than a frame may have
    flipped      some bits of it are others
    reordered    a later message of its stream comes in its place
    replayed     an earlier one comes once more
    misplaced    whole, and with its right checksum: of another attempt, round, stream or sequence
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from random import Random
from uuid import UUID

from vm_migration.transfer.frames import MAX_PAYLOAD, Frame, Place
from vm_migration.wire.frame import HEADER_BYTES, decode, encode

_LENGTH = slice(52, 56)
_MOST_LONGER = 9000
_MOST_BITS = 8
_WIDEST = 1 << 32


class Damage(StrEnum):
    """The kinds, as the table calls them."""

    TRUNCATED = "truncated"
    LENGTHENED = "lengthened"
    OVERSIZED = "oversized"
    FLIPPED = "flipped"
    REORDERED = "reordered"
    REPLAYED = "replayed"
    MISPLACED = "misplaced"


def damaged(kind: Damage, messages: Sequence[bytes], due: int, random: Random) -> bytes:
    """Return what comes instead of the message that is due; see `trying.kinds_of` for what there can be."""
    if kind is Damage.REORDERED:
        return messages[random.randrange(due + 1, len(messages))]
    if kind is Damage.REPLAYED:
        return messages[random.randrange(due)]
    return _CHANGES[kind](messages[due], random)


def on_a_byte_stream(came: bytes, due: bytes) -> bytes:
    """Return a damaged message with other bytes than its own behind it: on a direct stream messages have no ends.

    There is as much of it as the header says, so that a reader never has to wait for more.
    """
    lost = due[len(came) : len(came) + 1]
    rest = bytes(each ^ 0xFF for each in lost) + _no_frame(HEADER_BYTES)
    whole = came + rest
    said = int.from_bytes(whole[_LENGTH], "little")
    missing = max(0, HEADER_BYTES + said - len(whole)) if said <= MAX_PAYLOAD else 0
    return whole + _no_frame(missing + HEADER_BYTES)


def _no_frame(count: int) -> bytes:
    """Return bytes that are no frame: none begins with their version."""
    return b"\xa5" * count


def _truncated(message: bytes, random: Random) -> bytes:
    return message[: random.choice((random.randrange(HEADER_BYTES), random.randrange(len(message))))]


def _lengthened(message: bytes, random: Random) -> bytes:
    more = random.randbytes(random.randrange(1, _MOST_LONGER))
    return _saying(message + more, min(len(message) - HEADER_BYTES + len(more), MAX_PAYLOAD))


def _oversized(message: bytes, random: Random) -> bytes:
    return _saying(message, random.choice((MAX_PAYLOAD + 1, random.randrange(MAX_PAYLOAD + 1, _WIDEST))))


def _saying(message: bytes, length: int) -> bytes:
    return message[: _LENGTH.start] + length.to_bytes(4, "little") + message[_LENGTH.stop :]


def _flipped(message: bytes, random: Random) -> bytes:
    changed = bytearray(message)
    most = random.choice((8 * HEADER_BYTES, 8 * len(message)))
    for bit in random.sample(range(most), random.randint(1, _MOST_BITS)):
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _misplaced(message: bytes, random: Random) -> bytes:
    frame = decode(message)
    return encode(Frame(_elsewhere(frame.place, random), frame.body))


def _elsewhere(place: Place, random: Random) -> Place:
    match random.randrange(4):
        case 0:
            return replace(place, attempt=UUID(int=place.attempt.int ^ 1 << random.randrange(128)))
        case 1:
            return replace(place, round=place.round + random.randint(1, 9))
        case 2:
            return replace(place, stream=place.stream + random.randint(1, 9))
        case _:
            return replace(place, sequence=place.sequence + random.randint(1, 9))


_CHANGES = {
    Damage.TRUNCATED: _truncated,
    Damage.LENGTHENED: _lengthened,
    Damage.OVERSIZED: _oversized,
    Damage.FLIPPED: _flipped,
    Damage.MISPLACED: _misplaced,
}
