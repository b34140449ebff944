"""Real servers: calls, streams and errors that cross the link, and peers that do not answer."""

import contextlib
import io
import json
import socket
from collections.abc import AsyncIterator

import pytest

from tests.vm_migration.link.answering_agent import DESTINATION, PEER, Site, check, refusal, services
from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1.destination_pb2_grpc import DestinationStub
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.errors import (
    AttemptFailed,
    Cancelled,
    InternalError,
    InvalidInput,
    MachineLost,
    MigrationError,
    Missed,
    Refused,
    Stale,
    Unauthorised,
    Unreachable,
    Unresolved,
)
from vm_migration.link.call import call, stream
from vm_migration.link.channel import CONTROL_MESSAGE_LIMIT, open_channel
from vm_migration.link.server import AgentServer
from vm_migration.telemetry import logs


async def test_plaintext_on_loopback() -> None:
    async with AgentServer("127.0.0.1:0", None, services()) as server:
        assert server.port > 0
        assert server.address == f"127.0.0.1:{server.port}"
        assert await check(server.address, None) == "plain"


KINDS = [
    InvalidInput,
    Refused,
    Stale,
    Missed,
    Unauthorised,
    Unreachable,
    AttemptFailed,
    Cancelled,
    Unresolved,
    MachineLost,
    InternalError,
]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_error_crosses_whole(kind: type[MigrationError]) -> None:
    def act() -> None:
        raise kind("some-code", "Grüße: what happened", "Was tun? 1 % mehr ✓")

    async with AgentServer("127.0.0.1:0", None, services(act)) as server:
        error = await refusal(server.address, None)
    assert type(error) is kind
    assert (error.code, error.message, error.hint) == ("some-code", "Grüße: what happened", "Was tun? 1 % mehr ✓")


async def test_an_error_out_of_a_task_group_crosses_as_itself() -> None:
    def act() -> None:
        raise ExceptionGroup("tasks", [ExceptionGroup("inner", [Stale("epoch", "Older", "Look again")])])

    async with AgentServer("127.0.0.1:0", None, services(act)) as server:
        assert isinstance(await refusal(server.address, None), Stale)


async def test_a_very_long_message_is_clipped_not_lost() -> None:
    def act() -> None:
        raise Refused("long", "x" * 100_000, "y" * 100_000)

    async with AgentServer("127.0.0.1:0", None, services(act)) as server:
        error = await refusal(server.address, None)
    assert (error.code, len(error.message), len(error.hint)) == ("long", 1000, 1000)


async def test_a_fault_of_ours_is_logged_and_keeps_its_text() -> None:
    written = io.StringIO()
    logs.configure("test", stream=written)

    def act() -> None:
        raise KeyError("the password is swordfish")

    async with AgentServer("127.0.0.1:0", None, services(act)) as server:
        error = await refusal(server.address, None)
    assert (type(error), error.code) == (InternalError, "internal")
    assert "swordfish" not in error.message + error.hint
    [entry] = [one for one in map(json.loads, written.getvalue().splitlines()) if one["event"] == "call failed"]
    assert (entry["error"], entry["level"]) == ("KeyError", "error")
    assert entry["method"] == f"/{DESTINATION}/CheckIncoming"
    assert entry["place"].rpartition(":")[0] == __file__


async def collect(reports: AsyncIterator[source.AttemptReport], seen: list[int]) -> None:
    async for report in reports:
        seen.append(report.sequence)  # noqa: PERF401  # a comprehension would lose what came before the failure


async def test_a_stream_delivers_then_fails_as_itself(site: Site) -> None:
    async with (
        AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services()) as server,
        open_channel(server.address, site.issue("viewer", "vera"), "host-b") as channel,
    ):
        seen: list[int] = []
        watching = stream(SourceStub(channel).Watch, source.AttemptRequest(), peer=PEER, silence=10)
        with pytest.raises(AttemptFailed) as caught:
            await collect(watching, seen)
        assert (seen, caught.value.code) == ([1, 2], "timeout")


async def test_a_silent_stream_is_given_up() -> None:
    async with (
        AgentServer("127.0.0.1:0", None, services(silent=True), grace=0) as server,
        open_channel(server.address, None, "host-b") as channel,
    ):
        seen: list[int] = []
        watching = stream(SourceStub(channel).Watch, source.AttemptRequest(), peer=PEER, silence=3.0)
        with pytest.raises(Unreachable) as caught:
            await collect(watching, seen)
        assert (seen, caught.value.code) == ([1, 2], "silent")


async def test_a_stream_left_early_is_closed() -> None:
    async with (
        AgentServer("127.0.0.1:0", None, services(silent=True)) as server,
        open_channel(server.address, None, "host-b") as channel,
    ):
        watching = stream(SourceStub(channel).Watch, source.AttemptRequest(), peer=PEER, silence=10)
        async with contextlib.aclosing(watching) as reports:
            assert (await anext(reports)).sequence == 1

    # The server went without waiting for its grace of 5 s: the call was over.


async def test_nobody_there_is_unreachable_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    error = await refusal(address, None)
    assert (type(error), error.code, error.exit_code) == (Unreachable, "unreachable", 3)
    assert PEER in error.message


async def test_no_answer_in_time_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts into its backlog, never speaks
        async with open_channel(f"127.0.0.1:{listener.getsockname()[1]}", None, "host-b") as channel:
            method = DestinationStub(channel).CheckIncoming
            with pytest.raises(Unreachable) as caught:
                await call(method, destination.CheckIncomingRequest(), peer=PEER, deadline=0.3)
    assert caught.value.code == "deadline"


async def test_a_message_over_the_limit_is_refused() -> None:
    async with (
        AgentServer("127.0.0.1:0", None, services()) as server,
        open_channel(server.address, None, "host-b") as channel,
    ):
        request = destination.CheckIncomingRequest(source="x" * (CONTROL_MESSAGE_LIMIT + 1))
        with pytest.raises(Refused) as caught:
            await call(DestinationStub(channel).CheckIncoming, request, peer=PEER, deadline=10)
        assert caught.value.code == "too-large"
