"""Migrations beside peers that mean no good: how much slower they are is benchmarks.bad_peers' to say."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import begin, machine, policy, require_whole, specification, works
from tests.system.site import Site
from vm_migration.link.address import split_address

SILENT = 300
LONG = 30.0


@contextlib.asynccontextmanager
async def held(count: int, address: str) -> AsyncIterator[None]:
    """Hold connections open that say nothing; each that is closed is opened again."""
    left, all_open = count, asyncio.Event()

    async def hold() -> None:
        nonlocal left
        while True:
            reader, writer = await asyncio.open_connection(*split_address(address))
            left -= 1
            if left == 0:
                all_open.set()
            try:
                await reader.read()
            except ConnectionError:
                pass
            finally:
                writer.transport.abort()

    tasks = [asyncio.create_task(hold(), name=f"silent {number}") for number in range(count)]
    try:
        async with asyncio.timeout(LONG):
            await all_open.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


@pytest.mark.parametrize("transport", ["grpc", "direct"])
async def test_connections_that_say_nothing_stop_no_migration(site: Site, agents: Agents, transport: str) -> None:
    async with machine(site, agents, specification("bothered")) as created:
        attempt = await begin(agents, created.machine, "host-a", "host-b", policy(transport=transport))
        await attempt.prepare()
        async with held(SILENT, attempt.prepared.bulk_address):
            await attempt.start()
            report = await attempt.end()
        require_whole(report)
        await works(site, "host-b", created.machine, report.guest.jobs_done)
