"""What waits is told why, and nobody waits for that."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from orchestrator.admission import Order
from orchestrator.attempt import Attempt, Phase
from orchestrator.driving import driving
from orchestrator.service import AttemptQueue
from orchestrator.store.store import Ownership
from orchestrator.surroundings import Surroundings
from tests.orchestrator.fake_agents import FakeSite, fake_site


@pytest.fixture
async def site() -> AsyncIterator[FakeSite]:
    async with fake_site("host-a", "host-b", "host-c") as running:
        yield running


async def in_pre_copy(queue: AttemptQueue, attempt: Attempt) -> None:
    async with asyncio.timeout(10):
        async for row in queue.watch(attempt.attempt):
            if row.phase == Phase.PRE_COPY:
                return


async def test_a_free_place_is_given_while_the_store_is_slow_to_take_what_others_wait_for(
    site: FakeSite, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, host in (("one", "host-a"), ("two", "host-a"), ("three", "host-c")):
        site.world.add(name, host)
    site.world.script.hold_at = "pre-copy"
    explained, go, save = threading.Event(), threading.Event(), around.store.save

    def slow(
        attempt: Attempt, now: float, *, owner: Ownership | None = None, successor: Attempt | None = None
    ) -> Attempt:
        if attempt.phase is Phase.QUEUED and attempt.reason:
            explained.set()
            go.wait(20)
        return save(attempt, now, owner=owner, successor=successor)

    async with driving(replace(around, driver="orchestrator")) as at_work:
        await in_pre_copy(at_work.queue, await at_work.queue.submit(Order("one", "host-b")))
        try:
            with monkeypatch.context() as patched:
                patched.setattr(around.store, "save", slow)
                waits = await at_work.queue.submit(Order("two", "host-c"))
                assert await asyncio.to_thread(explained.wait, 10)
                await in_pre_copy(at_work.queue, await at_work.queue.submit(Order("three", "host-a")))
        finally:
            go.set()
        async with asyncio.timeout(10):
            async for row in at_work.queue.watch(waits.attempt):
                if "host-a sends another machine" in row.reason:
                    break
        site.world.script.go.set()
