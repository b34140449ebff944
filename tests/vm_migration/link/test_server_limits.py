"""What a server takes on: silent connections end by themselves, and no peer takes all calls there are."""

import asyncio
import contextlib
import ssl

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm_migration.link.answering_agent import PEER, Site, check, services
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.errors import Refused
from vm_migration.link.address import split_address
from vm_migration.link.channel import SERVER_OPTIONS, open_channel
from vm_migration.link.identity import Identity
from vm_migration.link.server import AgentServer
from vm_migration.link.server_limits import OpenCalls, ServerLimits, server_options
from vm_migration.link.tls import TlsFiles

LONG = 20.0
VERA, WIM = Identity.parse("viaduct://home/viewer/vera"), Identity.parse("viaduct://home/viewer/wim")


@given(st.integers(1, 1 << 20), st.integers(2, 1 << 20))
def test_connections_leave_half_of_the_descriptors_to_journals(connections: int, descriptors: int) -> None:
    options = dict(server_options(ServerLimits(connections=connections), descriptors))
    allowed = options["grpc.max_allowed_incoming_connections"]
    assert 1 <= allowed <= max(1, descriptors // 2)
    assert allowed == connections or allowed == descriptors // 2
    assert options.items() >= dict(SERVER_OPTIONS).items()


def test_a_call_that_has_ended_makes_room_for_another() -> None:
    calls = OpenCalls(1)
    for _ in range(3):
        with calls.counted(VERA):
            pass
    with pytest.raises(ValueError, match="lost"), calls.counted(VERA):
        raise ValueError("lost")
    with calls.counted(VERA), pytest.raises(Refused) as refused, calls.counted(VERA):
        pytest.fail("It was let in")
    assert refused.value.code == "too-many-calls"
    assert VERA.uri in refused.value.message
    with calls.counted(VERA):
        pass


def test_the_calls_of_one_peer_are_not_another_s() -> None:
    calls = OpenCalls(1)
    with calls.counted(VERA), calls.counted(WIM), calls.counted(None):
        pass


async def ends(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(LONG):
            while await reader.read(4096):
                pass


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize("first", [b"", b"PRI * HTTP/2.0\r\n"])
async def test_who_does_not_get_through_the_handshake_is_dropped(site: Site, secured: bool, first: bytes) -> None:
    files = site.issue("host", "host-b") if secured else None
    limits = ServerLimits(handshake=0.3)
    async with AgentServer("127.0.0.1:0", files, services(), limits=limits) as server:
        reader, writer = await asyncio.open_connection(*split_address(server.address))
        writer.write(first)
        await ends(reader)
        writer.close()
        assert await check(server.address, site.issue("orchestrator", "main") if secured else None)


async def test_who_stops_in_the_middle_of_a_handshake_is_dropped(site: Site) -> None:
    limits = ServerLimits(handshake=0.3)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="host-b")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    async with AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services(), limits=limits) as server:
        reader, writer = await asyncio.open_connection(*split_address(server.address))
        writer.write(outgoing.read())
        await ends(reader)
        writer.close()


async def test_more_connections_than_that_are_closed_and_the_open_ones_go_on(site: Site) -> None:
    files, client = site.issue("host", "host-b"), site.issue("orchestrator", "main")
    limits = ServerLimits(connections=4, handshake=0.5)
    async with (
        AgentServer("127.0.0.1:0", files, services(silent=True), limits=limits) as server,
        open_channel(server.address, client, "host-b") as channel,
    ):
        open_call = SourceStub(channel).Watch(source.AttemptRequest())
        assert (await next_of(open_call)).sequence == 1
        silent = [await asyncio.open_connection(*split_address(server.address)) for _ in range(20)]
        assert (await next_of(open_call)).sequence == 2
        for reader, writer in silent:
            await ends(reader)
            writer.close()
        assert await check(server.address, client)
        open_call.cancel()


async def test_a_peer_with_too_many_calls_is_refused_and_others_are_not(site: Site) -> None:
    files = site.issue("host", "host-b")
    vera, wim = site.issue("viewer", "vera"), site.issue("viewer", "wim")
    async with (
        AgentServer("127.0.0.1:0", files, services(silent=True), limits=ServerLimits(calls=2)) as server,
        open_channel(server.address, vera, "host-b") as channel,
    ):
        first, second = (SourceStub(channel).Watch(source.AttemptRequest()) for _ in range(2))
        assert [(await next_of(one)).sequence for one in (first, second)] == [1, 1]
        assert await refused_code(server.address, vera) == "too-many-calls"
        assert await check(server.address, wim)
        second.cancel()
        async with asyncio.timeout(LONG):
            while await refused_code(server.address, vera):  # until the server has seen it
                pass
        first.cancel()


async def next_of(
    watching: grpc.aio.UnaryStreamCall[source.AttemptRequest, source.AttemptReport],
) -> source.AttemptReport:
    report = await watching.read()
    assert isinstance(report, source.AttemptReport)
    return report


async def refused_code(address: str, tls: TlsFiles) -> str:
    try:
        await check(address, tls, PEER.split()[0])
    except Refused as error:
        return error.code
    return ""
