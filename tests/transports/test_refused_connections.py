"""Who may open a connection of a machine's own stream: the attempt's source, with its ticket, each once and in turn."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import grpc.aio
import pytest

from tests.fakes.carried_site import LONG, CarriedSite, carried_site
from tests.fakes.far_end import TICKET, an_end
from vm_migration.errors import MigrationError, Refused, Unauthorised
from vm_migration.link.channel import open_channel
from vm_migration.link.machine_stream.opening import CARRY_METHOD, decode_opening
from vm_migration.link.machine_stream.order import StreamRole
from vm_migration.link.status import from_rpc_error


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[CarriedSite]:
    async with carried_site(tmp_path, 3) as found:
        yield found


async def refused(
    site: CarriedSite,
    ordinal: int = 0,
    *,
    name: str = "host-a",
    ticket: bytes = TICKET,
    role: StreamRole = StreamRole.MAIN,
) -> MigrationError:
    """Return what somebody is told who opens a connection."""
    with an_end() as ended:
        async with asyncio.timeout(LONG), site.link(name) as link, link.connection(ticket, role, ordinal):
            raise AssertionError("The connection was opened")
    return ended[0]


async def test_a_connection_without_the_ticket_is_refused(site: CarriedSite) -> None:
    for ticket in (bytes(32), TICKET[:-1], b""):
        error = await refused(site, ticket=ticket)
        assert (type(error), error.code) == (Unauthorised, "wrong-ticket")


async def test_only_the_source_of_the_attempt_may_open_one(site: CarriedSite) -> None:
    for name, code in (("host-c", "wrong-source"), ("op", "role")):
        error = await refused(site, name=name)
        assert (type(error), error.code) == (Unauthorised, code)


async def test_a_connection_that_comes_before_its_turn_is_refused(site: CarriedSite) -> None:
    """Until 8.0 QEMU takes whichever it accepts first for the main one, and waits for ever where it is not."""
    error = await refused(site, 1, role=StreamRole.CHANNEL)
    assert (type(error), error.code) == (Unauthorised, "stream-out-of-order")
    assert (await refused(site, 0, role=StreamRole.CHANNEL)).code == "stream-out-of-order"
    assert site.came.empty()


async def test_a_connection_comes_once_and_only_those_of_the_attempt(site: CarriedSite) -> None:
    async with asyncio.timeout(LONG), site.link() as link, link.connection(TICKET, StreamRole.MAIN, 0):
        assert (await refused(site)).code == "stream-taken"
        assert (await refused(site, 3, role=StreamRole.CHANNEL)).code == "stream-taken"


async def test_who_is_refused_ends_nothing_of_those_that_were_let_in(site: CarriedSite) -> None:
    async with asyncio.timeout(LONG), site.link() as link, link.connection(TICKET, StreamRole.MAIN, 0) as far:
        there = await site.accept()
        await refused(site, 1, ticket=bytes(32), role=StreamRole.CHANNEL)
        await refused(site, 2, role=StreamRole.CHANNEL)
        await far.send(b"alive")
        assert await there[0].readexactly(5) == b"alive"


async def test_an_attempt_that_is_not_arriving_takes_none(site: CarriedSite) -> None:
    with an_end() as ended:
        async with (
            asyncio.timeout(LONG),
            site.link(attempt=str(UUID(int=5))) as link,
            link.connection(TICKET, StreamRole.MAIN, 0),
        ):
            raise AssertionError("The connection was opened")
    assert (type(ended[0]), ended[0].code) == (Refused, "not-arriving")


@pytest.mark.parametrize("first", [b"", b"\xff\xff", b"PRI * HTTP/2.0"])
async def test_what_is_no_opening_opens_nothing(site: CarriedSite, first: bytes) -> None:
    async with asyncio.timeout(LONG), open_channel(site.bulk, site.identities["host-a"], "host-b") as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(CARRY_METHOD)
        call = method(iter([first]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(call))
        error = from_rpc_error(caught.value, "host-b")
    assert (type(error), error.code) == (Unauthorised, "no-stream")
    assert site.came.empty()


def test_a_role_of_a_later_version_is_not_taken_for_one_of_this() -> None:
    with pytest.raises(Unauthorised) as refusal:
        decode_opening(b"\x18\x63")
    assert refusal.value.code == "no-stream"


async def test_a_process_that_does_not_listen_ends_the_stream(site: CarriedSite) -> None:
    (site.folder / "in.sock").unlink()
    assert (await refused(site)).code == "stream-unavailable"
