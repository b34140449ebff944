"""No peer takes all the calls there are, nor all the time."""

import asyncio
import contextlib
import io
import json

import grpc.aio
import pytest

from tests.vm_migration.link.answering_agent import Site, check, services
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.errors import MigrationError, Unreachable
from vm_migration.link import entering_call
from vm_migration.link.audit import Entry
from vm_migration.link.call_pace import AT_ONCE
from vm_migration.link.channel import open_channel
from vm_migration.link.identity import Identity, Role
from vm_migration.link.server import AgentServer
from vm_migration.link.server_limits import ServerLimits
from vm_migration.link.status import CODE
from vm_migration.link.tls import TlsFiles
from vm_migration.link.turnstile import HOSTS_MAY, Turnstile
from vm_migration.telemetry import logs
from vm_migration.telemetry.counts import CONNECTIONS, IDENTIFIED_CONNECTIONS, TURNED_AWAY_CALLS

LONG = 20.0
GET_ATTEMPT = "/vm_migration.api.v1.Source/GetAttempt"
VERA, WIM = Identity.parse("viaduct://home/viewer/vera"), Identity.parse("viaduct://home/viewer/wim")


async def test_a_call_that_has_ended_makes_room_for_another() -> None:
    turnstile = Turnstile(ServerLimits(calls=1))
    for _ in range(3):
        async with turnstile.passing(VERA):
            pass
    with pytest.raises(ValueError, match="lost"):
        async with turnstile.passing(VERA):
            raise ValueError("lost")
    async with turnstile.passing(VERA):
        before = TURNED_AWAY_CALLS.read().get(("viewer",), 0)
        with pytest.raises(Unreachable) as turned_away:
            async with turnstile.passing(VERA):
                pytest.fail("It was let in")
    assert turned_away.value.code == "too-many-calls"
    assert VERA.uri in turned_away.value.message
    assert TURNED_AWAY_CALLS.read()["viewer",] == before + 1
    async with turnstile.passing(VERA):
        pass


async def test_the_calls_of_one_peer_are_not_another_s() -> None:
    turnstile = Turnstile(ServerLimits(calls=1))
    async with turnstile.passing(VERA), turnstile.passing(WIM), turnstile.passing(None):
        pass


async def test_who_goes_while_it_waits_for_its_turn_leaves_its_place() -> None:
    turnstile = Turnstile(ServerLimits(calls=2, calls_per_second=1))
    now = asyncio.get_running_loop().time()
    for _ in range(8):  # its next turn is seconds away
        turnstile._paces[Role.VIEWER].turn(VERA, now)
    waiting = asyncio.create_task(passes(turnstile, VERA))
    await asyncio.sleep(0)
    assert not waiting.done()
    async with turnstile.passing(WIM):
        waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not turnstile._open


def test_rounds_of_a_migration_do_not_wait_where_others_would() -> None:
    turnstile = Turnstile(ServerLimits(calls_per_second=1))
    source = Identity.parse("viaduct://home/host/host-a")
    for pace, peer, at_once in ((Role.VIEWER, VERA, 1), (Role.HOST, source, HOSTS_MAY)):
        waits = [turnstile._paces[pace].turn(peer, 0.0) or 0.0 for _ in range(round(at_once * AT_ONCE) + 2)]
        assert max(waits[:-1]) == pytest.approx(0.0)
        assert waits[-1] == pytest.approx(1 / at_once)


async def passes(turnstile: Turnstile, peer: Identity) -> None:
    async with turnstile.passing(peer):
        pass


async def test_a_peer_with_too_many_calls_is_turned_away_and_others_are_not(site: Site) -> None:
    logs.configure("test", stream=(log := io.StringIO()))
    files = site.issue("host", "host-b")
    vera, wim = site.issue("viewer", "vera"), site.issue("viewer", "wim")
    async with (
        AgentServer("127.0.0.1:0", files, services(silent=True), limits=ServerLimits(calls=2)) as server,
        open_channel(server.address, vera, "host-b") as channel,
    ):
        first, second = (SourceStub(channel).Watch(source.AttemptRequest()) for _ in range(2))
        assert [(await next_of(one)).sequence for one in (first, second)] == [1, 1]
        assert await failure(server.address, vera) == "too-many-calls"
        told = [line for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == "call turned away"]
        assert [(line["peer"], line["code"]) for line in told] == [("viaduct://home/viewer/vera", "too-many-calls")]
        assert await check(server.address, wim)
        second.cancel()
        async with asyncio.timeout(LONG):
            while await failure(server.address, vera):  # until the server has seen it
                pass
        first.cancel()


async def test_who_calls_without_end_is_slowed(site: Site) -> None:
    files, vera = site.issue("host", "host-b"), site.issue("viewer", "vera")
    calls, per_second = 30, 10
    limits = ServerLimits(calls_per_second=per_second)
    async with (
        AgentServer("127.0.0.1:0", files, services(), limits=limits) as server,
        open_channel(server.address, vera, "host-b") as channel,
    ):
        begun = asyncio.get_running_loop().time()
        asked = [SourceStub(channel).GetAttempt(source.AttemptRequest(), timeout=LONG) for _ in range(calls)]
        answers = await asyncio.gather(*(one.code() for one in asked))
        took = asyncio.get_running_loop().time() - begun
    assert set(answers) == {grpc.StatusCode.UNIMPLEMENTED}
    assert took >= (calls - 1) / per_second - AT_ONCE


async def test_who_is_turned_away_is_so_before_his_request_has_come(site: Site) -> None:
    """gRPC would have taken megabytes of each in by then."""
    files, vera = site.issue("host", "host-b"), site.issue("viewer", "vera")
    async with (
        AgentServer("127.0.0.1:0", files, services(silent=True), limits=ServerLimits(calls=1)) as server,
        open_channel(server.address, vera, "host-b") as channel,
    ):
        watching = SourceStub(channel).Watch(source.AttemptRequest())
        assert (await next_of(watching)).sequence == 1
        async with asyncio.timeout(LONG):
            assert await end_without_request(channel) == (grpc.StatusCode.UNAVAILABLE, "too-many-calls")
        watching.cancel()


async def test_a_request_that_does_not_come_is_not_waited_for_without_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entering_call, "REQUEST_SECONDS", 0.2)
    files, vera = site.issue("host", "host-b"), site.issue("viewer", "vera")
    async with (
        AgentServer("127.0.0.1:0", files, services(), limits=ServerLimits(calls=1)) as server,
        open_channel(server.address, vera, "host-b") as channel,
    ):
        async with asyncio.timeout(LONG):
            assert await end_without_request(channel) == (grpc.StatusCode.INVALID_ARGUMENT, "no-request")
        assert await check(server.address, vera), "its place is free again"


@pytest.mark.parametrize("requests", [[], [b"\xff"]], ids=["none", "no message"])
async def test_what_is_no_request_is_refused_and_not_told_as_a_fault_of_ours(site: Site, requests: list[bytes]) -> None:
    files, vera = site.issue("host", "host-b"), site.issue("viewer", "vera")
    async with (
        AgentServer("127.0.0.1:0", files, services()) as server,
        open_channel(server.address, vera, "host-b") as channel,
    ):
        calling: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(GET_ATTEMPT)
        call = calling(iter(requests), timeout=LONG)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def end_without_request(channel: grpc.aio.Channel) -> tuple[grpc.StatusCode, str]:
    """Begin a call and never send what it asks for; return how it ended."""
    calling: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(GET_ATTEMPT)
    call = calling()
    ended = await call.code()
    trailing = dict(await call.trailing_metadata())
    return ended, str(trailing[CODE])


async def test_what_is_turned_away_has_no_line_of_the_audit_log(site: Site) -> None:
    written: list[Entry] = []
    files, anna = site.issue("host", "host-b"), site.issue("operator", "anna")
    limits = ServerLimits(calls=1)
    async with (
        AgentServer("127.0.0.1:0", files, services(silent=True), limits=limits, audit=written.append) as server,
        open_channel(server.address, anna, "host-b") as channel,
    ):
        watching = SourceStub(channel).Watch(source.AttemptRequest())
        assert (await next_of(watching)).sequence == 1
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await SourceStub(channel).Cancel(source.AttemptRequest(), timeout=LONG)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        watching.cancel()
    assert written == []


async def test_connections_are_counted_when_they_come_and_when_it_is_known_whose_they_are(site: Site) -> None:
    files, vera = site.issue("host", "host-b"), site.issue("viewer", "vera")
    came, identified = (each.read().get(("calls",), 0) for each in (CONNECTIONS, IDENTIFIED_CONNECTIONS))
    async with AgentServer("127.0.0.1:0", files, services()) as server:
        assert await check(server.address, vera)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(LONG):
                await reader.read()
        writer.close()
        async with open_channel(server.address, vera, "host-b") as channel:
            for _ in range(2):
                with pytest.raises(grpc.aio.AioRpcError):
                    await SourceStub(channel).GetAttempt(source.AttemptRequest(), timeout=LONG)
    assert CONNECTIONS.read()["calls",] == came + 3
    assert IDENTIFIED_CONNECTIONS.read()["calls",] == identified + 2


async def next_of(
    watching: grpc.aio.UnaryStreamCall[source.AttemptRequest, source.AttemptReport],
) -> source.AttemptReport:
    report = await watching.read()
    assert isinstance(report, source.AttemptReport)
    return report


async def failure(address: str, tls: TlsFiles) -> str:
    try:
        await check(address, tls)
    except MigrationError as error:
        return error.code
    return ""
