"""A connection's bytes, in whatever pieces they come: where they go, and what is kept of the places."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.link.direct_wire import DirectWire


@contextmanager
def ends() -> Iterator[tuple[socket.socket, DirectWire]]:
    """Have a connection: one end bare, the other as a wire."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
    with one, other:
        yield one, DirectWire(other)


@given(st.lists(st.integers(0, 1500), max_size=30), st.data())
@settings(max_examples=60)
def test_places_are_filled_one_behind_the_other_and_no_further(lengths: list[int], data: st.DataObject) -> None:
    total = sum(lengths)
    sent = bytes(at * 7 % 251 for at in range(total))
    memory = [bytearray(length + 1) for length in lengths]
    places = [memoryview(each)[:-1] for each in memory]
    with ends() as (peer, wire):
        at = 0
        while at < total:
            count = data.draw(st.integers(1, total - at))
            peer.sendall(sent[at : at + count])
            at += count
        peer.sendall(b"next")
        wire.fill(places)
        assert b"".join(each[:-1] for each in memory) == sent
        assert {each[-1] for each in memory} <= {0}
        rest = bytearray(4)
        assert wire.read_exactly(memoryview(rest))
        assert rest == b"next"
    for place, each in zip(places, memory, strict=True):
        place.release()
        each.append(0)  # which a view that is left would not allow


@given(st.integers(0, 299))
@settings(max_examples=20)
def test_a_place_that_is_not_filled_is_held_by_no_error(came: int) -> None:
    memory = bytearray(300)
    places = [memoryview(memory)[:100], memoryview(memory)[100:]]
    with ends() as (peer, wire):
        peer.sendall(bytes(came))
        peer.close()
        with pytest.raises(ConnectionResetError) as broke:
            wire.fill(places)
    for place in places:
        place.release()
    memory.append(0)  # which a view that is left would not allow
    assert broke.traceback


@given(st.lists(st.binary(max_size=10_000), min_size=1, max_size=6))
@settings(max_examples=20)
def test_parts_are_written_one_behind_the_other(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    with ends() as (peer, wire):
        peer.setblocking(True)
        wire.write(parts)
        came = bytearray(len(whole))
        assert peer.recv_into(came, len(whole), socket.MSG_WAITALL) == len(whole)
        assert came == whole
