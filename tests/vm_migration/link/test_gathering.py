"""What comes over a connection while nobody takes it."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from vm_migration.link.machine_stream.gathering import PIECE, Gathering

Pair = tuple[socket.socket, socket.socket]
"""The process's end, and the one that is gathered from."""


@pytest.fixture
def pair() -> Iterator[Pair]:
    process, here = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with process, here:
        process.setblocking(False)
        here.setblocking(False)
        yield process, here


async def all_that_comes(gathering: Gathering) -> list[bytes]:
    pieces = []
    while piece := await gathering.take():
        pieces.append(piece)
    return pieces


async def test_whoever_waits_is_given_what_comes_at_once(pair: Pair) -> None:
    process, here = pair
    with closing(Gathering(here)) as gathering:
        taken = asyncio.create_task(gathering.take())
        await asyncio.sleep(0)  # it waits now
        process.send(b"first")
        assert await taken == b"first"


async def test_what_comes_while_nobody_takes_it_is_one_piece(pair: Pair) -> None:
    process, here = pair
    with closing(Gathering(here)) as gathering:
        process.send(b"a")
        assert await gathering.take() == b"a"
        for each in (b"b", b"c", b"d"):
            process.send(each)
            await asyncio.sleep(0)
        assert await gathering.take() == b"bcd"


async def test_a_process_is_read_while_nobody_takes_until_a_piece_is_full_and_then_has_to_wait(pair: Pair) -> None:
    process, here = pair
    process.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that nearly all of it has to be read from it
    said = os.urandom(3 * PIECE)
    loop = asyncio.get_running_loop()
    with closing(Gathering(here)) as gathering:
        process.send(said[:1])
        assert await gathering.take() == said[:1]
        await asyncio.wait_for(loop.sock_sendall(process, said[1 : PIECE // 2]), 20.0)  # though nobody takes
        speaking = asyncio.create_task(loop.sock_sendall(process, said[PIECE // 2 :]))
        first = await gathering.take()
        taking = asyncio.create_task(all_that_comes(gathering))
        await speaking
        process.shutdown(socket.SHUT_WR)
        pieces = [said[:1], first, *await taking]
    assert b"".join(pieces) == said
    assert max(map(len, pieces)) <= PIECE


async def test_no_more_than_a_piece_is_taken_from_a_process_that_goes_on(pair: Pair) -> None:
    process, here = pair
    with closing(Gathering(here)) as gathering:
        process.send(b"a")
        assert await gathering.take() == b"a"
        speaking = asyncio.create_task(asyncio.get_running_loop().sock_sendall(process, bytes(8 * PIECE)))
        for _ in range(200):  # each lets either end go on once
            await asyncio.sleep(0)
        assert not speaking.done()
        assert len(await gathering.take()) == PIECE
        speaking.cancel()


async def test_an_end_is_told_behind_everything_and_again(pair: Pair) -> None:
    process, here = pair
    with closing(Gathering(here)) as gathering:
        process.send(b"last")
        process.shutdown(socket.SHUT_WR)
        assert [await gathering.take() for _ in range(3)] == [b"last", b"", b""]


async def test_what_came_before_a_break_is_given_first(pair: Pair) -> None:
    process, here = pair
    here.send(b"never read")
    with closing(Gathering(here)) as gathering:
        process.send(b"before")
        process.close()  # with something unread: the connection is reset
        assert await gathering.take() == b"before"
        with pytest.raises(ConnectionError):
            await gathering.take()


async def test_nothing_is_heard_of_a_connection_that_was_closed(pair: Pair) -> None:
    process, here = pair
    gathering = Gathering(here)
    process.send(b"a")
    assert await gathering.take() == b"a"
    gathering.close()
    assert not asyncio.get_running_loop().remove_reader(here)
