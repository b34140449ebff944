"""Real servers, real handshakes: what crosses the link and what does not."""

import asyncio
import contextlib
import io
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest as ReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionResponse as ReflectionResponse

from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1 import types_pb2 as types
from vm_migration.api.v1.destination_pb2_grpc import (
    DestinationServicer,
    DestinationStub,
    add_DestinationServicer_to_server,
)
from vm_migration.api.v1.source_pb2_grpc import SourceServicer, SourceStub, add_SourceServicer_to_server
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
from vm_migration.link.identity import Identity, Role, peer_identity
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.server import AgentServer, Service
from vm_migration.link.tls import TlsFiles
from vm_migration.telemetry import logs

PEER = "host-b (loopback)"
DESTINATION = "vm_migration.api.v1.Destination"
BULK = "/vm_migration.api.v1.Bulk/Send"


@dataclass
class Incoming(DestinationServicer):
    """Answers with the name of its caller, after doing as told."""

    act: Callable[[], None] = lambda: None

    async def CheckIncoming(  # noqa: N802  # named by the .proto file
        self,
        request: destination.CheckIncomingRequest,
        context: grpc.aio.ServicerContext[destination.CheckIncomingRequest, destination.CheckIncomingResponse],
    ) -> destination.CheckIncomingResponse:
        self.act()
        peer = peer_identity(context)
        return destination.CheckIncomingResponse(blockers=[types.Blocker(message=peer.uri if peer else request.source)])


@dataclass
class Outgoing(SourceServicer):
    """Streams two reports, then fails, or falls silent."""

    silent: bool = False

    async def Watch(  # noqa: N802  # named by the .proto file
        self,
        request: source.AttemptRequest,
        context: grpc.aio.ServicerContext[source.AttemptRequest, source.AttemptReport],
    ) -> AsyncIterator[source.AttemptReport]:
        yield source.AttemptReport(sequence=1)
        yield source.AttemptReport(sequence=2)
        if self.silent:
            await asyncio.Event().wait()
        raise AttemptFailed("timeout", "The attempt took too long", "Try again")


def bulk_echo() -> grpc.GenericRpcHandler:
    async def send(frames: AsyncIterator[bytes], _: grpc.ServicerContext) -> AsyncIterator[bytes]:
        async for frame in frames:
            yield frame[::-1]

    function = cast("Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]", send)  # as the stubs know it
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(function)
    return grpc.method_handlers_generic_handler("vm_migration.api.v1.Bulk", {"Send": handler})


def services(act: Callable[[], None] = lambda: None, *, silent: bool = False) -> list[Service]:
    incoming = Incoming(act)  # type: ignore[abstract]  # the other calls are answered UNIMPLEMENTED
    outgoing = Outgoing(silent)  # type: ignore[abstract]  # as above
    return [
        Service(DESTINATION, partial(add_DestinationServicer_to_server, incoming)),
        Service("vm_migration.api.v1.Source", partial(add_SourceServicer_to_server, outgoing)),
        Service("vm_migration.api.v1.Bulk", lambda server: server.add_generic_rpc_handlers((bulk_echo(),))),
    ]


@dataclass(frozen=True)
class Site:
    folder: Path

    def issue(self, role: str, name: str) -> TlsFiles:
        return issue(self.folder, Identity("home", Role(role), name))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    create_authority(tmp_path / "pki", "home")
    return Site(tmp_path / "pki")


async def check(address: str, tls: TlsFiles | None, peer: str = "host-b") -> str:
    async with open_channel(address, tls, peer) as channel:
        method = DestinationStub(channel).CheckIncoming
        answer = await call(method, destination.CheckIncomingRequest(source="plain"), peer=PEER, deadline=10)
        return answer.blockers[0].message


async def refusal(address: str, tls: TlsFiles | None, peer: str = "host-b") -> MigrationError:
    with pytest.raises(MigrationError) as caught:
        await check(address, tls, peer)
    return caught.value


async def test_plaintext_on_loopback() -> None:
    async with AgentServer("127.0.0.1:0", None, services()) as server:
        assert server.port > 0
        assert server.address == f"127.0.0.1:{server.port}"
        assert await check(server.address, None) == "plain"


async def test_mutual_tls_tells_who_calls(site: Site) -> None:
    async with AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services()) as server:
        assert await check(server.address, site.issue("host", "host-a")) == "viaduct://home/host/host-a"
        assert await check(server.address, site.issue("viewer", "vera")) == "viaduct://home/viewer/vera"


async def test_a_name_is_resolved_once(site: Site) -> None:
    async with AgentServer("localhost:0", site.issue("host", "host-b"), services()) as server:
        assert server.address == f"localhost:{server.port}"
        assert await check(server.address, site.issue("host", "host-a"))


async def test_a_client_without_a_certificate_is_refused(site: Site) -> None:
    files = site.issue("host", "host-b")
    async with AgentServer("127.0.0.1:0", files, services()) as server:
        anonymous = grpc.ssl_channel_credentials(files.ca.read_bytes())
        options = [("grpc.ssl_target_name_override", "host-b")]
        async with grpc.aio.secure_channel(server.address, anonymous, options=options) as channel:
            with pytest.raises(Unreachable):
                await call(
                    DestinationStub(channel).CheckIncoming, destination.CheckIncomingRequest(), peer=PEER, deadline=10
                )
        assert isinstance(await refusal(server.address, None), Unreachable)


async def test_a_client_of_another_authority_is_refused(site: Site, tmp_path: Path) -> None:
    create_authority(tmp_path / "other", "home")
    stranger = issue(tmp_path / "other", Identity("home", Role.ORCHESTRATOR, "main"))
    async with AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services()) as server:
        error = await refusal(server.address, stranger)
        assert (type(error), error.code) == (Unreachable, "tls")
        mixed = TlsFiles(site.folder / "ca.pem", stranger.certificate, stranger.key)
        assert isinstance(await refusal(server.address, mixed), Unreachable)


async def test_a_server_of_another_name_is_refused(site: Site) -> None:
    async with AgentServer("127.0.0.1:0", site.issue("host", "host-c"), services()) as server:
        error = await refusal(server.address, site.issue("host", "host-a"))
        assert (type(error), error.code) == (Unreachable, "tls")
        assert PEER in error.message


async def test_an_operator_cannot_pose_as_a_host(site: Site) -> None:
    async with AgentServer("127.0.0.1:0", site.issue("operator", "host-b"), services()) as server:
        assert isinstance(await refusal(server.address, site.issue("host", "host-a")), Unreachable)


@pytest.mark.parametrize(
    ("role", "allowed"), [("orchestrator", True), ("operator", True), ("viewer", False), ("host", False)]
)
async def test_roles_are_enforced_on_the_wire(site: Site, role: str, allowed: bool) -> None:
    async with (
        AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services()) as server,
        open_channel(server.address, site.issue(role, "caller"), "host-b") as channel,
    ):
        with pytest.raises(MigrationError) as caught:
            await call(SourceStub(channel).Begin, source.BeginRequest(), peer=PEER, deadline=10)
        expected = (Refused, "not-offered") if allowed else (Unauthorised, "role")
        assert (type(caught.value), caught.value.code) == expected


async def test_bulk_is_for_hosts(site: Site) -> None:
    async with AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services()) as server:
        async with open_channel(server.address, site.issue("host", "host-a"), "host-b") as channel:
            frames = send_bulk(channel, b"abc")
            assert [frame async for frame in frames] == [b"cba"]
        async with open_channel(server.address, site.issue("operator", "anna"), "host-b") as channel:
            frames = send_bulk(channel, b"abc")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await frames.read()
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def send_bulk(channel: grpc.aio.Channel, frame: bytes) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    async def frames() -> AsyncIterator[bytes]:
        yield frame

    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(BULK)
    return method(frames(), timeout=10)


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
    [line] = written.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["error"], entry["level"]) == ("call failed", "KeyError", "error")
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
        watching = stream(SourceStub(channel).Watch, source.AttemptRequest(), peer=PEER, silence=0.5)
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


@pytest.mark.parametrize("tls", [False, True])
async def test_a_port_in_use_is_refused(site: Site, tls: bool) -> None:
    files = site.issue("host", "host-b") if tls else None
    async with AgentServer("127.0.0.1:0", files, services()) as first:
        with pytest.raises(Refused) as caught:
            async with AgentServer(first.address, files, services()):
                pytest.fail("two servers on one port")
        assert caught.value.code == "address-in-use"
        assert first.address in caught.value.message
    async with AgentServer(first.address, files, services()) as again:  # free again at once
        assert again.address == first.address


async def test_addresses_of_others_are_refused(site: Site) -> None:
    files = site.issue("host", "host-b")
    for address in ("192.0.2.1:0", "no-such-host.invalid:0", "nonsense"):
        with pytest.raises(InvalidInput):
            async with AgentServer(address, files, services()):
                pytest.fail("bound to what is not ours")


@pytest.mark.parametrize("address", ["[::]:0", "192.0.2.1:7001", "example.org:7001"])
async def test_plaintext_off_loopback_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        async with AgentServer(address, None, services()):
            pytest.fail("plaintext off loopback")
    assert caught.value.code == "plaintext-refused"
    with pytest.raises(InvalidInput):
        open_channel(address, None, "host-b")


async def health_of(channel: grpc.aio.Channel, service: str) -> int:
    method: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    method = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    return (await method(health_pb2.HealthCheckRequest(service=service), timeout=10)).status


async def test_health_turns_while_draining(site: Site) -> None:
    async with (
        AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services()) as server,
        open_channel(server.address, site.issue("viewer", "vera"), "host-b") as channel,
    ):
        for name in ("", DESTINATION):
            assert await health_of(channel, name) == health_pb2.HealthCheckResponse.SERVING
        await server.drain()
        for name in ("", DESTINATION):
            assert await health_of(channel, name) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await check(server.address, site.issue("host", "host-a"))  # what is under way can end


async def test_reflection_lists_the_services() -> None:
    async with (
        AgentServer("127.0.0.1:0", None, services()) as server,
        open_channel(server.address, None, "host-b") as channel,
    ):
        method: grpc.aio.StreamStreamMultiCallable[ReflectionRequest, ReflectionResponse] = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            ReflectionRequest.SerializeToString,
            ReflectionResponse.FromString,
        )
        answers = [answer async for answer in method(iter([ReflectionRequest(list_services="")]), timeout=10)]
        names = {service.name for service in answers[0].list_services_response.service}
        assert {DESTINATION, "vm_migration.api.v1.Source", "grpc.health.v1.Health"} <= names
