"""A daemon's channels show the certificate as it is now, and what was under way goes on."""

import asyncio

import grpc.aio
import pytest

from tests.vm_migration.link.answering_agent import PEER, Site, services
from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1.destination_pb2_grpc import DestinationStub
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.errors import InvalidInput, Unreachable
from vm_migration.link.call import call, stream
from vm_migration.link.changed_files import AGAIN
from vm_migration.link.channel import open_channel
from vm_migration.link.pki import renew
from vm_migration.link.renewed_channels import RenewedChannels
from vm_migration.link.server import AgentServer
from vm_migration.link.tls import TlsFiles


async def name_of_caller(channels: RenewedChannels, address: str) -> str:
    method = DestinationStub(channels.to(address, "host-b")).CheckIncoming
    answer = await call(method, destination.CheckIncomingRequest(), peer=PEER, deadline=10)
    return answer.blockers[0].message


async def test_a_channel_is_kept_until_the_files_change(site: Site) -> None:
    files = site.issue("orchestrator", "main")
    channels = RenewedChannels(files)
    async with AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services(silent=True)) as server:
        first = channels.to(server.address, "host-b")
        assert channels.to(server.address, "host-b") is first
        watching = stream(SourceStub(first).Watch, source.AttemptRequest(), peer=PEER, silence=10)
        assert (await anext(watching)).sequence == 1
        renew(site.folder, "main")
        second = channels.to(server.address, "host-b")
        assert second is not first
        assert await name_of_caller(channels, server.address) == "viaduct://home/orchestrator/main"
        assert (await anext(watching)).sequence == 2
        await watching.aclose()
        renew(site.folder, "main")
        assert channels.to(server.address, "host-b") not in (first, second)
        assert await name_of_caller(channels, server.address)
        await channels.close()


async def test_who_watches_for_longer_than_two_renewals_is_told_to_ask_again(site: Site) -> None:
    files = site.issue("orchestrator", "main")
    channels = RenewedChannels(files)
    async with AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services(silent=True)) as server:
        first = channels.to(server.address, "host-b")
        watching = stream(SourceStub(first).Watch, source.AttemptRequest(), peer=PEER, silence=10)
        assert [(await anext(watching)).sequence for _ in range(2)] == [1, 2]
        for _ in range(2):
            renew(site.folder, "main")
            assert await name_of_caller(channels, server.address)
        with pytest.raises(Unreachable) as ended:
            await anext(watching)
        assert ended.value.code == "call-cancelled"
        await channels.close()


async def test_who_is_cancelled_while_he_watches_is_cancelled(site: Site) -> None:
    channels = RenewedChannels(site.issue("orchestrator", "main"))
    async with AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services(silent=True)) as server:
        stub = SourceStub(channels.to(server.address, "host-b"))
        seen = asyncio.Event()

        async def watch() -> None:
            async for report in stream(stub.Watch, source.AttemptRequest(), peer=PEER, silence=10):
                if report.sequence == 2:
                    seen.set()

        watching = asyncio.create_task(watch())
        await seen.wait()
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        await channels.close()


async def test_files_that_become_unusable_leave_the_channel_of_before(site: Site) -> None:
    files = site.issue("orchestrator", "main")
    channels = RenewedChannels(files)
    async with AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services()) as server:
        first = channels.to(server.address, "host-b")
        files.key.unlink()
        assert channels.to(server.address, "host-b") is first
        assert await name_of_caller(channels, server.address)
        with pytest.raises(InvalidInput):
            channels.to(server.address, "host-c")
        await channels.close()


async def test_files_that_could_not_be_used_are_tried_again_after_a_pause(site: Site) -> None:
    files, now, fails = site.issue("orchestrator", "main"), 100.0, False

    def opened(address: str, of: TlsFiles | None, peer: str) -> grpc.aio.Channel:
        if fails:
            raise InvalidInput("tls-file", "It cannot be read: Too many open files", "")
        return open_channel(address, of, peer)

    channels = RenewedChannels(files, opened, lambda: now)
    first = channels.to("127.0.0.1:1", "host-b")
    renew(site.folder, "main")
    fails = True
    assert channels.to("127.0.0.1:1", "host-b") is first
    fails = False
    assert channels.to("127.0.0.1:1", "host-b") is first
    now += AGAIN
    assert channels.to("127.0.0.1:1", "host-b") is not first
    await channels.close()


async def test_plaintext_has_nothing_to_renew() -> None:
    channels = RenewedChannels(None)
    async with AgentServer("127.0.0.1:0", None, services()) as server:
        assert channels.to(server.address, "host-b") is channels.to(server.address, "host-b")
        assert await name_of_caller(channels, server.address) == ""
        await channels.close()
