"""Sealed records as they come (vm_migration.link.sealed_wire); the first byte says to which end.

Mended, what lies in a record is sealed as it is, so that what is behind the seal is reached.
"""

from itertools import cycle
from unittest.mock import patch

from tests.fakes.written_wire import WrittenWire
from tests.fuzz.target import Target, same
from vm_migration.link import sealed_wire
from vm_migration.link.sealed_wire import SealedWire
from vm_migration.link.sealing import (
    LENGTH_BYTES,
    SECRET_BYTES,
    TAG_BYTES,
    Direction,
    NotSealed,
    Opener,
    Sealer,
    sealed_length,
)

_LONGEST, _LONGEST_ANSWER = 1 << 13, 1 << 9
"""Bytes of the longest records here: room for a real one, made anew for every input, takes longer than to read it."""
_SECRET = bytes(range(SECRET_BYTES))
_READS = (1, 40, 3, 200, 5000)
"""Bytes that are asked for, in turns: of what a record has, a part, all, and more."""
_IN_TWO = 40
"""Of these, what is read as a frame's data are, into two places."""


def _to_source(data: bytes) -> bool:
    return data[:1] == b"\1"


def _direction(data: bytes) -> Direction:
    return Direction.TO_SOURCE if _to_source(data) else Direction.TO_DESTINATION


def _read(data: bytes) -> None:
    with patch.multiple(sealed_wire, LONGEST=_LONGEST, LONGEST_ANSWER=_LONGEST_ANSWER):
        wire = SealedWire(WrittenWire(data[1:]), _SECRET, is_source=_to_source(data))
    came = bytearray()
    try:
        for count in cycle(_READS):
            into = memoryview(bytearray(count))
            if count == _IN_TWO:
                wire.fill((into[:8], into[8:]))
            elif not wire.read_exactly(into):
                break
            came += into
    finally:
        same(came, _said(data)[: len(came)])


def _said(data: bytes) -> bytes:
    """Return what the records say, read by themselves, up to the first that is not whole or does not open."""
    opener, longest = Opener(_SECRET, _direction(data)), _LONGEST_ANSWER if _to_source(data) else _LONGEST
    said, left = bytearray(), data[1:]
    while len(left) >= LENGTH_BYTES:
        length, left = left[:LENGTH_BYTES], left[LENGTH_BYTES:]
        try:
            into = memoryview(bytearray(sealed_length(length, longest)))
            if len(left) < len(into) + TAG_BYTES:
                break
            opener.open(length, left[: len(into) + TAG_BYTES], into)
        except NotSealed:
            break
        said += into
        left = left[len(into) + TAG_BYTES :]
    return bytes(said)


def _mended(data: bytes) -> bytes:
    sealer, room = Sealer(_SECRET, _direction(data)), memoryview(bytearray(len(data) + LENGTH_BYTES + TAG_BYTES))
    made, left = bytearray(data[:1]), data[1:]
    while len(left) > LENGTH_BYTES + TAG_BYTES:
        count = int.from_bytes(left[:LENGTH_BYTES], "little") - TAG_BYTES
        if count < 1:
            break
        message = left[LENGTH_BYTES : LENGTH_BYTES + min(count, len(left) - LENGTH_BYTES - TAG_BYTES)]
        made += sealer.seal(message, room)
        left = left[LENGTH_BYTES + len(message) + TAG_BYTES :]
    return bytes(made) + left


def _seed(first: bytes, *lengths: int) -> bytes:
    """Return records of so many bytes, behind the byte that says to which end they come."""
    sealer, room = Sealer(_SECRET, _direction(first)), memoryview(bytearray(sum(lengths) + LENGTH_BYTES + TAG_BYTES))
    return first + b"".join(bytes(sealer.seal((bytes(range(256)) * 32)[:length], room)) for length in lengths)


TARGET = Target(
    "sealed_record",
    _read,
    refusals=(OSError,),
    seeds={
        "one": _seed(b"\0", 44),
        "apart": _seed(b"\0", 1, 8, 32, 3),
        "long": _seed(b"\0", 30, 14, 5000, 200),
        "answers": _seed(b"\1", 1, 40, 3),
    },
    mended=_mended,
    declared=lambda _: 4 * _LONGEST,  # both ends have room for the longest record, whatever comes
)
