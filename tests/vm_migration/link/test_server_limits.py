"""What a server takes on: silent and idle connections end by themselves, and too many are closed."""

import asyncio
import contextlib
import ssl

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm_migration.link.answering_agent import Site, check, services
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.link import channel
from vm_migration.link.address import split_address
from vm_migration.link.channel import CHANNEL_OPTIONS, SERVER_OPTIONS, open_channel
from vm_migration.link.server import AgentServer
from vm_migration.link.server_limits import ServerLimits, server_options

LONG = 20.0
HANDSHAKE = 2.0
"""Seconds in which whoever does shake hands is through, also where this machine is busy with other things."""


@given(st.integers(1, 1 << 20), st.integers(2, 1 << 20))
def test_connections_leave_half_of_the_descriptors_to_journals(connections: int, descriptors: int) -> None:
    options = dict(server_options(ServerLimits(connections=connections), descriptors))
    allowed = options["grpc.max_allowed_incoming_connections"]
    assert 1 <= allowed <= max(1, descriptors // 2)
    assert allowed == connections or allowed == descriptors // 2
    assert options.items() >= dict(SERVER_OPTIONS).items()


async def ends(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(LONG):
            while await reader.read(4096):
                pass


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize("first", [b"", b"PRI * HTTP/2.0\r\n"])
async def test_who_does_not_get_through_the_handshake_is_dropped(site: Site, secured: bool, first: bytes) -> None:
    files = site.issue("host", "host-b") if secured else None
    limits = ServerLimits(handshake=HANDSHAKE)
    async with AgentServer("127.0.0.1:0", files, services(), limits=limits) as server:
        reader, writer = await asyncio.open_connection(*split_address(server.address))
        writer.write(first)
        await ends(reader)
        writer.close()
        assert await check(server.address, site.issue("orchestrator", "main") if secured else None)


async def test_who_stops_in_the_middle_of_a_handshake_is_dropped(site: Site) -> None:
    limits = ServerLimits(handshake=HANDSHAKE)
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
    limits = ServerLimits(connections=4, handshake=HANDSHAKE)
    async with (
        AgentServer("127.0.0.1:0", files, services(silent=True), limits=limits) as server,
        open_channel(server.address, client, "host-b") as calling,
    ):
        open_call = SourceStub(calling).Watch(source.AttemptRequest())
        assert (await next_of(open_call)).sequence == 1
        silent = [await asyncio.open_connection(*split_address(server.address)) for _ in range(20)]
        assert (await next_of(open_call)).sequence == 2
        for reader, writer in silent:
            await ends(reader)
            writer.close()
        assert await check(server.address, client)
        open_call.cancel()


async def test_who_has_shown_a_certificate_and_makes_no_call_is_closed_and_comes_back_with_the_next_one(
    site: Site,
) -> None:
    files, client = site.issue("host", "host-b"), site.issue("viewer", "vera")
    async with (
        AgentServer("127.0.0.1:0", files, services(silent=True), limits=ServerLimits(idle=0.3)) as server,
        open_channel(server.address, client, "host-b") as busy,
        open_channel(server.address, client, "host-b") as idle,
    ):
        watching = SourceStub(busy).Watch(source.AttemptRequest())
        assert (await next_of(watching)).sequence == 1
        await connected(idle)
        async with asyncio.timeout(LONG):
            await idle.wait_for_state_change(grpc.ChannelConnectivity.READY)
        for _ in range(3):
            assert await code_of(idle) is grpc.StatusCode.UNIMPLEMENTED, "answered, over a new connection"
        assert (await next_of(watching)).sequence == 2
        watching.cancel()


async def test_channels_of_ours_let_go_before_a_server_closes_them(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "grpc.client_idle_timeout_ms"
    assert dict(CHANNEL_OPTIONS)[name] <= 1000 * ServerLimits().idle - 10_000, "or a call meets one that is closing"
    sooner = [(option, 1000 if option == name else value) for option, value in CHANNEL_OPTIONS]
    monkeypatch.setattr(channel, "CHANNEL_OPTIONS", sooner)
    async with (
        AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services()) as server,
        open_channel(server.address, site.issue("viewer", "vera"), "host-b") as idle,
    ):
        await connected(idle)
        async with asyncio.timeout(LONG):
            await idle.wait_for_state_change(grpc.ChannelConnectivity.READY)
        assert await code_of(idle) is grpc.StatusCode.UNIMPLEMENTED


async def connected(by: grpc.aio.Channel) -> None:
    assert await code_of(by) is grpc.StatusCode.UNIMPLEMENTED
    assert by.get_state() is grpc.ChannelConnectivity.READY


async def code_of(by: grpc.aio.Channel) -> grpc.StatusCode:
    return await SourceStub(by).GetAttempt(source.AttemptRequest(), timeout=LONG).code()


async def next_of(
    watching: grpc.aio.UnaryStreamCall[source.AttemptRequest, source.AttemptReport],
) -> source.AttemptReport:
    report = await watching.read()
    assert isinstance(report, source.AttemptReport)
    return report
