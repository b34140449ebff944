"""Sealed records: what opens, and that nothing else does. Certificates and the secret's way are tests/transports'."""

import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.link import sealing
from vm_migration.link.direct_wire import DirectWire
from vm_migration.link.sealed_wire import LONGEST, LONGEST_ANSWER, SealedWire
from vm_migration.link.sealing import Direction, NotSealed, Opener, Sealer, sealed_length

SECRET = bytes(range(32))
OTHER = bytes(range(1, 33))
OUT = Direction.TO_DESTINATION
messages = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8)


def sealed(parts: list[bytes], secret: bytes = SECRET, direction: Direction = OUT) -> list[bytes]:
    sealer, room = Sealer(secret, direction), memoryview(bytearray(1000))
    return [bytes(sealer.seal(part, room)) for part in parts]


def opened(records: list[bytes], secret: bytes = SECRET, direction: Direction = OUT) -> list[bytes]:
    opener, told = Opener(secret, direction), []
    for record in records:
        message = bytearray(sealed_length(record, LONGEST))
        opener.open(record[:4], record[4:], memoryview(message))
        told.append(bytes(message))
    return told


@given(messages)
def test_what_was_sealed_opens_in_its_order(parts: list[bytes]) -> None:
    assert opened(sealed(parts)) == parts


@given(messages, st.data())
@settings(max_examples=200)
def test_a_record_that_was_changed_left_out_repeated_or_moved_does_not_open(
    parts: list[bytes], data: st.DataObject
) -> None:
    records = sealed(parts)
    at = data.draw(st.integers(0, len(records) - 1))
    match data.draw(st.sampled_from(["change", "leave out", "repeat", "move"])):
        case "change":
            changed = bytearray(records[at])
            changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
            records[at] = bytes(changed)
        case "leave out":
            records = [*records[:at], *records[at + 1 :], *sealed([b"another"], OTHER)]
        case "repeat":
            records.insert(at + 1, records[at])
        case _:
            records = [*records[at:], *records[:at]] if at else [*records, records[0]]
    with pytest.raises((NotSealed, ValueError)):  # a length that was changed leaves another count of bytes
        opened(records)


@pytest.mark.parametrize(("secret", "direction"), [(OTHER, OUT), (SECRET, Direction.TO_SOURCE)])
def test_a_record_of_another_connection_or_direction_does_not_open(secret: bytes, direction: Direction) -> None:
    with pytest.raises(NotSealed):
        opened(sealed([b"message"]), secret, direction)


def test_it_is_what_the_page_says() -> None:
    """Written out with the library's own calls, so that another program's records are these."""
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"viaduct-sealed/1|to destination|" + bytes(8)).derive(
        SECRET
    )
    length = struct.pack("<I", 7 + 16)
    for count, record in enumerate(sealed([b"message", b"message"])):
        assert record == length + AESGCM(key).encrypt(struct.pack(">IQ", 0, count), b"message", length)


def test_a_key_is_left_after_its_span_and_no_nonce_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "SPAN", 3)
    parts = [b"%d" % each for each in range(10)]
    records = sealed(parts)
    assert opened(records) == parts
    first = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"viaduct-sealed/1|to destination|" + bytes(8)).derive(
        SECRET
    )
    by_first = [
        record == record[:4] + AESGCM(first).encrypt(struct.pack(">IQ", 0, count), parts[count], record[:4])
        for count, record in enumerate(records)
    ]
    assert by_first == [True] * 3 + [False] * 7


@pytest.mark.parametrize("said", [0, 15, 16, LONGEST + 17, 2**32 - 1])
def test_a_length_that_no_record_has_is_refused_before_anything_is_read(said: int) -> None:
    with pytest.raises(NotSealed):
        sealed_length(struct.pack("<I", said), LONGEST)


@contextmanager
def ends() -> Iterator[tuple[SealedWire, SealedWire, socket.socket]]:
    """Have both ends of a connection, and the destination's socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
    with one, other:
        yield (
            SealedWire(DirectWire(one), SECRET, is_source=True),
            SealedWire(DirectWire(other), SECRET, is_source=False),
            other,
        )


@given(st.lists(st.binary(min_size=1, max_size=40_000), min_size=1, max_size=4), st.data())
@settings(max_examples=60)
def test_a_message_of_parts_is_read_in_any_pieces(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    with ends() as (source, destination, _):
        source.write(parts)
        source.write((b"end",))
        came = bytearray(len(whole))
        at = 0
        while at < len(whole):
            count = data.draw(st.integers(1, len(whole) - at))
            piece = memoryview(came)[at : at + count]
            if data.draw(st.booleans()):
                destination.fill([piece[: count // 2], piece[count // 2 :]])
            else:
                assert destination.read_exactly(piece)
            at += count
        assert bytes(came) == whole
        last = bytearray(3)
        assert destination.read_exactly(memoryview(last))
        assert last == b"end"


def test_both_directions_go_on_at_once() -> None:
    with ends() as (source, destination, _):
        source.write((b"question",))
        destination.write((b"answer",))
        for wire, expected in ((destination, b"question"), (source, b"answer")):
            came = bytearray(len(expected))
            assert wire.read_exactly(memoryview(came))
            assert came == expected


def test_threads_that_write_at_once_have_no_nonce_in_common() -> None:
    messages = [bytes([number]) * 20_000 for number in range(4)]
    with ends() as (source, destination, _), ThreadPoolExecutor(len(messages)) as pool:
        writing = [pool.submit(_written, source, message) for message in messages]
        came = []
        for _ in range(10 * len(messages)):
            message = bytearray(len(messages[0]))
            assert destination.read_exactly(memoryview(message))
            came.append(bytes(message))
        for each in writing:
            each.result()
    assert sorted(came) == sorted(10 * messages)


def _written(wire: SealedWire, message: bytes) -> None:
    for _ in range(10):
        wire.write((message[:1000], message[1000:]))


def test_an_end_between_messages_is_an_end_and_in_the_middle_it_is_none() -> None:
    with ends() as (source, destination, _):
        source.shut()
        assert not destination.read_exactly(memoryview(bytearray(1)))
        with pytest.raises(ConnectionResetError):
            destination.fill([memoryview(bytearray(1))])
    with ends() as (source, destination, _):
        source.write((b"half of it",))
        source.shut()
        with pytest.raises(ConnectionResetError):
            destination.read_exactly(memoryview(bytearray(11)))


@pytest.mark.parametrize("kind", [21, 23], ids=["alert", "data"])
def test_a_tls_record_is_no_answer_and_is_not_waited_for(kind: int) -> None:
    """A destination that does not accept a certificate says so in TLS, when its source has left it already."""
    with ends() as (source, destination, _):
        destination._bare.write((bytes([kind, 3, 3, 0, 19]),))
        with pytest.raises(NotSealed):
            source.read_exactly(memoryview(bytearray(56)), time.monotonic() + 20)


def test_the_longest_of_either_end_comes_through() -> None:
    with ends() as (source, destination, _):
        destination.write((bytes(LONGEST_ANSWER),), time.monotonic() + 20)
        assert source.read_exactly(memoryview(bytearray(LONGEST_ANSWER)), time.monotonic() + 20)
    assert LONGEST_ANSWER == 4 + 0xFFFF


def test_a_view_that_is_filled_is_held_by_no_error() -> None:
    with ends() as (source, destination, _):
        source._bare.write((struct.pack("<I", 40) + bytes(40),))
        memory = bytearray(24)
        place = memoryview(memory)
        with pytest.raises(NotSealed) as refusal:
            destination.fill([place])
        place.release()
        memory.append(0)  # which an exported view would not allow
        assert refusal.traceback
