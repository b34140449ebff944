"""Where an agent's server listens, and what it says of itself."""

import io
import socket

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest as ReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionResponse as ReflectionResponse

from tests.vm_migration.link.answering_agent import DESTINATION, Site, check, services
from vm_migration.errors import InvalidInput, Refused
from vm_migration.link.channel import open_channel
from vm_migration.link.server import AgentServer
from vm_migration.telemetry import logs


async def test_a_name_is_resolved_once(site: Site) -> None:
    async with AgentServer("localhost:0", site.issue("host", "host-b"), services()) as server:
        assert server.address == f"localhost:{server.port}"
        assert await check(server.address, site.issue("orchestrator", "main"))


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


async def test_one_server_is_met_at_all_its_addresses(site: Site) -> None:
    files, caller = site.issue("host", "host-b"), site.issue("orchestrator", "main")
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        second = f"127.0.0.2:{free.getsockname()[1]}"
    async with AgentServer("127.0.0.1:0", files, services(), also=(second,)) as server:
        assert await check(server.address, caller)
        assert await check(second, caller)


async def test_addresses_of_others_are_refused(site: Site) -> None:
    files = site.issue("host", "host-b")
    for address in ("192.0.2.1:0", "no-such-host.invalid:0", "nonsense"):
        with pytest.raises(InvalidInput):
            async with AgentServer(address, files, services()):
                pytest.fail("bound to what is not ours")
        with pytest.raises(InvalidInput):
            async with AgentServer("127.0.0.1:0", files, services(), also=(address,)):
                pytest.fail("bound to what is not ours")


@pytest.mark.parametrize("address", ["[::]:0", "192.0.2.1:7001", "example.org:7001"])
async def test_plaintext_off_loopback_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        async with AgentServer(address, None, services()):
            pytest.fail("plaintext off loopback")
    assert caught.value.code == "plaintext-refused"
    with pytest.raises(InvalidInput):
        open_channel(address, None, "host-b")


async def test_plaintext_is_said_aloud(site: Site) -> None:
    log = io.StringIO()
    logs.configure("test", stream=log)
    async with AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services()):
        assert "plaintext" not in log.getvalue()
    async with AgentServer("127.0.0.1:0", None, services()):
        assert '"plaintext: ' in log.getvalue()


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
        assert await check(server.address, site.issue("orchestrator", "main"))  # what is under way can end


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
