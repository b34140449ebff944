"""Agents of several hosts in memory, behind real gRPC servers on loopback; what an attempt does is scripted."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from orchestrator.agents import HostAddresses
from tests.orchestrator.fake_services import FakeDestination, FakeHost, FakeMachines, FakeSource
from tests.orchestrator.fake_world import World
from vm_migration.api.v1.destination_pb2_grpc import add_DestinationServicer_to_server
from vm_migration.api.v1.machine_pb2_grpc import (
    add_HostServicer_to_server,
    add_MachinesServicer_to_server,
)
from vm_migration.api.v1.source_pb2_grpc import add_SourceServicer_to_server
from vm_migration.link.server import AgentServer, Service

_API = "vm_migration.api.v1"


def _source_services(world: World, host: str) -> list[Service]:
    return [
        Service(f"{_API}.Host", partial(add_HostServicer_to_server, FakeHost(world, host))),
        Service(f"{_API}.Machines", partial(add_MachinesServicer_to_server, FakeMachines(world, host))),
        Service(f"{_API}.Source", partial(add_SourceServicer_to_server, FakeSource(world, host))),
    ]


def _dest_services(world: World, host: str) -> list[Service]:
    return [
        Service(f"{_API}.Host", partial(add_HostServicer_to_server, FakeHost(world, host))),
        Service(f"{_API}.Destination", partial(add_DestinationServicer_to_server, FakeDestination(world, host))),
    ]


class FakeSite:
    """Several hosts that share a world, each with two agents on loopback."""

    def __init__(self) -> None:
        self.world = World()
        self.addresses: dict[str, HostAddresses] = {}
        self._stacks: dict[str, contextlib.AsyncExitStack] = {}

    async def serve(self, host: str) -> None:
        """Start both agents of a host."""
        stack = self._stacks[host] = contextlib.AsyncExitStack()
        source_agent, dest_agent = [
            await stack.enter_async_context(AgentServer("127.0.0.1:0", None, services, grace=0.0))
            for services in (_source_services(self.world, host), _dest_services(self.world, host))
        ]
        self.addresses[host] = HostAddresses(source_agent.address, dest_agent.address)

    async def stop(self, host: str) -> None:
        """Stop both agents of a host; its addresses stay configured."""
        await self._stacks.pop(host).aclose()

    async def close(self) -> None:
        """Stop everything."""
        for attempt in self.world.attempts.values():
            if attempt.task is not None:
                attempt.task.cancel()
        for host in list(self._stacks):
            await self.stop(host)


@contextlib.asynccontextmanager
async def fake_site(*hosts: str) -> AsyncIterator[FakeSite]:
    """Serve some hosts."""
    site = FakeSite()
    try:
        for host in hosts:
            await site.serve(host)
        yield site
    finally:
        await site.close()
