"""Servers that only answer, reached over the simulated network or over a real one: for tests that hold for both."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import grpc.aio

from tests.simulation.channels import Caller
from tests.simulation.hosts import SITE, end_process
from tests.simulation.network import Network
from tests.simulation.serving import Endpoint
from tests.simulation.virtual_loop import Process, VirtualLoop
from tests.simulation.virtual_time import in_virtual_time
from tests.vm_migration.link.answering_agent import services
from vm_migration.link.channel import open_channel
from vm_migration.link.identity import Identity, Role
from vm_migration.link.server import AgentServer

ADDRESS: Final = "host-b:7002"

Act = Callable[[], None]


@dataclass(frozen=True)
class Peer:
    """A server that answers, and what a caller needs of it."""

    channel: grpc.aio.Channel
    stop: Callable[[], Awaitable[None]]
    """End it at once."""


Serve = Callable[[Act, bool], AbstractAsyncContextManager[Peer]]
"""Have a server act before each answer, and fall silent in its stream or not."""
Scenario = Callable[[Serve], Awaitable[None]]


def over_loopback(scenario: Scenario) -> None:
    """Run a scenario over a real server."""

    @asynccontextmanager
    async def serve(act: Act, silent: bool) -> AsyncIterator[Peer]:
        async with (
            AgentServer("127.0.0.1:0", None, services(act, silent=silent), grace=0) as server,
            open_channel(server.address, None, "host-b") as channel,
        ):
            yield Peer(channel, lambda: server.__aexit__(None, None, None))

    async def run() -> None:
        await scenario(serve)

    asyncio.run(run())


def over_simulation(scenario: Scenario) -> None:
    """Run a scenario over the simulated network."""

    async def run(loop: VirtualLoop) -> None:
        network = Network(loop, 2)

        @asynccontextmanager
        async def serve(act: Act, silent: bool) -> AsyncIterator[Peer]:
            process = Process("host-b/dest")
            endpoint = Endpoint("host-b", process, site="")
            endpoint.register(services(act, silent=silent))
            network.endpoints[ADDRESS] = endpoint
            caller = Caller(network, "host-a", Process("host-a"), Identity(SITE, Role.HOST, "host-a"))

            async def stop() -> None:
                end_process(loop, process)

            async with caller.channels()(ADDRESS, None, "host-b") as channel:
                yield Peer(channel, stop)

        await scenario(serve)

    in_virtual_time(run)
