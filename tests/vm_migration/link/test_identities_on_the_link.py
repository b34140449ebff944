"""Real handshakes: who may call whom, and who only claims to be somebody."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from tests.vm_migration.link.answering_agent import PEER, Site, check, refusal, services
from tests.vm_migration.link.contract import BULK
from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1.destination_pb2_grpc import DestinationStub
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.errors import MigrationError, Refused, Unauthorised, Unreachable
from vm_migration.link.call import call
from vm_migration.link.channel import open_channel
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.server import AgentServer
from vm_migration.link.tls import TlsFiles


async def test_mutual_tls_tells_who_calls(site: Site) -> None:
    async with AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services()) as server:
        assert await check(server.address, site.issue("orchestrator", "main")) == "viaduct://home/orchestrator/main"
        assert await check(server.address, site.issue("viewer", "vera")) == "viaduct://home/viewer/vera"


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
