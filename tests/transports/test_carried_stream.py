"""A machine's own stream over real sockets: both ways, in order, and cut at every point. The tests play QEMU."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fakes.cable import Cable, cable_to
from tests.fakes.carried_site import LONG, CarriedSite, Process, carried_site
from tests.fakes.far_end import TICKET, an_end
from vm_migration.errors import AttemptFailed, Refused
from vm_migration.link.machine_stream.order import StreamRole

MUCH = os.urandom(3 << 20)


async def say(process: Process, what: bytes, *, last: bool = False) -> None:
    process[1].write(what)
    await process[1].drain()
    if last:
        process[1].write_eof()


async def ends(process: Process) -> None:
    """Wait until a process hears no more, for whatever reason."""
    try:
        while await process[0].read(1 << 20):
            pass
    except ConnectionError:
        pass


@pytest.mark.parametrize("secured", [True, False], ids=["tls", "plain"])
async def test_both_directions_are_carried_and_end_each_for_itself(tmp_path: Path, secured: bool) -> None:
    async with asyncio.timeout(LONG), carried_site(tmp_path, secured=secured) as site, site.relay() as carrying:
        here = await site.connect()
        await say(here, b"first ")
        there = await site.accept()
        assert await there[0].readexactly(6) == b"first "
        await say(there, b"page requests")
        assert await here[0].readexactly(13) == b"page requests"
        speaking = asyncio.create_task(say(here, MUCH, last=True))
        assert await there[0].read() == MUCH  # and its end
        await speaking
        speaking = asyncio.create_task(say(there, MUCH[::-1], last=True))
        assert await here[0].read() == MUCH[::-1]  # which is heard all the same
        await speaking
        await carrying.drained()
        assert (carrying.said, carrying.heard) == (6 + len(MUCH), 13 + len(MUCH))


async def test_an_end_that_the_destination_says_first_is_carried_too(tmp_path: Path) -> None:
    async with asyncio.timeout(LONG), carried_site(tmp_path, secured=False) as site, site.relay() as carrying:
        here = await site.connect()
        there = await site.accept()
        await say(there, b"enough", last=True)
        assert await here[0].read() == b"enough"
        await say(here, b"and more", last=True)
        assert await there[0].read() == b"and more"
        await carrying.drained()


async def test_connections_come_in_the_order_in_which_they_were_opened(tmp_path: Path) -> None:
    most = 5
    async with asyncio.timeout(LONG), carried_site(tmp_path, most, secured=False) as site, site.relay():
        here = [await site.connect() for _ in range(most)]  # all at once, as QEMU's threads do
        for ordinal, each in enumerate(here):
            await say(each, bytes([ordinal]))
        there = [await site.accept() for _ in range(most)]
        assert [await each[0].readexactly(1) for each in there] == [bytes([ordinal]) for ordinal in range(most)]
        with contextlib.suppress(ConnectionError):  # it may be refused, or closed, by how far the listener is with that
            await ends(await site.connect())
        assert site.came.empty()


async def nothing_said(here: Process, there: Process) -> None:
    del here, there


async def in_the_middle(here: Process, there: Process) -> None:
    here[1].write(MUCH)
    await there[0].readexactly(1 << 20)


async def source_has_ended(here: Process, there: Process) -> None:
    await say(here, b"all", last=True)
    assert await there[0].read() == b"all"


async def destination_has_ended(here: Process, there: Process) -> None:
    await say(there, b"all", last=True)
    assert await here[0].read() == b"all"


async def link(site: CarriedSite, cable: Cable, left: Callable[[], Awaitable[None]]) -> None:
    del site, left
    cable.cut()


async def destination(site: CarriedSite, cable: Cable, left: Callable[[], Awaitable[None]]) -> None:
    del cable, left
    site.arrival.let_go()


async def source(site: CarriedSite, cable: Cable, left: Callable[[], Awaitable[None]]) -> None:
    del site, cable
    await left()


Cut = Callable[[CarriedSite, Cable, Callable[[], Awaitable[None]]], Awaitable[None]]


@pytest.mark.parametrize("cut", [link, destination, source], ids=lambda cut: f"by-the-{cut.__name__}")
@pytest.mark.parametrize(
    "point", [nothing_said, in_the_middle, source_has_ended, destination_has_ended], ids=lambda point: point.__name__
)
async def test_a_stream_that_is_cut_anywhere_ends_every_connection_at_both_ends(
    tmp_path: Path, point: Callable[[Process, Process], Awaitable[None]], cut: Cut
) -> None:
    most = 3
    async with (
        asyncio.timeout(LONG),
        carried_site(tmp_path, most, secured=False) as site,
        cable_to(site.bulk) as cable,
    ):
        site.bulk = cable.address
        with an_end() as ended:
            async with asyncio.timeout(LONG), AsyncExitStack() as relayed:
                await relayed.enter_async_context(site.relay())
                here = [await site.connect() for _ in range(most)]
                there = [await site.accept() for _ in range(most)]
                await point(here[1], there[1])
                await cut(site, cable, relayed.aclose)
                await asyncio.gather(*map(ends, (*here, *there)))
                if cut is source:
                    raise Refused("cut", "as was meant")
                await asyncio.Event().wait()
        assert ended


async def test_a_process_that_takes_nothing_holds_the_other_up_and_fills_no_memory(tmp_path: Path) -> None:
    async with asyncio.timeout(LONG), carried_site(tmp_path, secured=False) as site, site.relay() as carrying:
        here = await site.connect()
        await site.accept()  # which reads no more than asyncio does by itself
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(say(here, MUCH * 20), 1.0)
        assert carrying.said < 32 << 20
        here[1].transport.abort()


async def test_a_connection_that_breaks_at_the_destination_takes_the_others_with_it_whatever_their_source_does(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(LONG), carried_site(tmp_path, 3, secured=False) as site, site.link() as link:
        async with (
            link.connection(TICKET, StreamRole.MAIN, 0) as main,
            link.connection(TICKET, StreamRole.CHANNEL, 1) as channel,
        ):
            there = [await site.accept() for _ in range(2)]
            await main.send(MUCH[: 1 << 20])
            there[0][1].transport.abort()  # with something unread: its socket is reset
            with pytest.raises(AttemptFailed) as broken:
                await channel.receive()
            assert broken.value.code == "stream-broken"
            await ends(there[1])
        with an_end() as refused:
            async with link.connection(TICKET, StreamRole.CHANNEL, 2):
                await asyncio.Event().wait()
        assert refused
