"""What runs shares the bandwidth of its hosts' links: at its begin, when others begin, and when they end."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from orchestrator.admission import Order
from orchestrator.attempt import Attempt, Outcome, Phase
from orchestrator.driving import driving
from orchestrator.limits import UNLIMITED
from orchestrator.link_shares import LinkShares, Tuning
from orchestrator.policy import MigrationPolicy
from orchestrator.queueing import Slots
from orchestrator.service import AttemptQueue
from orchestrator.surroundings import Surroundings
from tests.orchestrator.fake_agents import FakeSite, fake_site
from tests.orchestrator.test_queueing import waiting
from vm_migration.api.v1 import source_pb2
from vm_migration.errors import Unreachable

MIB = 1 << 20


@pytest.fixture
async def site() -> AsyncIterator[FakeSite]:
    async with fake_site("host-a", "host-b", "host-c") as running:
        yield running


def nobody_looks() -> None:
    raise AssertionError("Nothing was told")


async def until(queue: AttemptQueue, attempt: Attempt, phase: Phase) -> None:
    async for row in queue.watch(attempt.attempt):
        if row.phase == phase:
            return


async def test_who_begins_gets_a_share_and_who_ends_leaves_one(site: FakeSite, around: Surroundings) -> None:
    for name in ("one", "two"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "pre-copy"
    shared = replace(around, driver="orchestrator", slots=Slots(outgoing=2), bandwidth={"host-a": 10 * MIB})
    async with driving(shared) as at_work:
        queue = at_work.queue
        first = await queue.submit(Order("one", "host-b"))
        await until(queue, first, Phase.PRE_COPY)
        second = await queue.submit(Order("two", "host-c", MigrationPolicy(max_bandwidth_bytes_per_s=2 * MIB)))
        await until(queue, second, Phase.PRE_COPY)
        while f"Tune 0 {8 * MIB}" not in site.world.calls:  # noqa: ASYNC110 - the source has it: it tells nobody
            await asyncio.sleep(0.01)
        assert site.world.begun_with == {first.attempt: 10 * MIB, second.attempt: 2 * MIB}
        tuned = await queue.tune(
            await queue.find(second.attempt), downtime_limit_ms=0, max_bandwidth_bytes_per_s=50 * MIB
        )
        assert (tuned.attempt, site.world.calls[-1]) == (second.attempt, f"Tune 0 {5 * MIB}")
        while site.world.calls.count(f"Tune 0 {5 * MIB}") < 2:  # noqa: ASYNC110 - the first one, too
            await asyncio.sleep(0.01)
        await queue.cancel(await queue.find(second.attempt))
        await until(queue, second, Phase.ABORTED)
        while f"Tune 0 {10 * MIB}" not in site.world.calls:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        site.world.script.go.set()
        await until(queue, first, Phase.COMPLETED)
    assert around.store.get(first.attempt).policy.max_bandwidth_bytes_per_s == 0  # as it was asked for
    assert around.store.get(second.attempt).outcome == Outcome.CANCELLED


async def test_without_a_budget_nobody_is_tuned(site: FakeSite, around: Surroundings) -> None:
    shares = LinkShares(around.agents, {}, nobody_looks)
    one = replace(waiting(1, "host-a", "host-b"), epoch=2)
    assert (shares.terms(one), shares.due([one]), shares.within(one, 77)) == (one.policy, [], 77)
    assert shares.within(one, UNLIMITED) == UNLIMITED
    assert site.world.calls == []


async def test_a_source_that_cannot_be_told_is_due_again(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    shares = LinkShares(around.agents, {"host-a": 100}, lambda: looks.append(None))
    one = replace(waiting(1, "host-a", "host-b"), epoch=2, phase=Phase.PRE_COPY)
    (tuning,) = shares.due([one])
    assert tuning == Tuning(one, 100)

    async def silent(*_: object) -> None:
        raise Unreachable("unreachable", "Nobody answers")

    with monkeypatch.context() as patched:
        patched.setattr(around.agents, "tune", silent)
        await shares.tell(tuning)
    assert looks == []  # which would ask it again at once, and again
    assert shares.due([one]) == [tuning]
    past = replace(one, phase=Phase.RELEASING)
    assert shares.due([past]) == []


async def test_a_source_is_told_of_a_change_only_when_it_has_answered_to_the_last(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, go, arrived = asyncio.Event(), asyncio.Event(), list[int]()
    shares = LinkShares(around.agents, {"host-a": 100}, looks.set)
    one = replace(waiting(1, "host-a", "host-b"), epoch=2, phase=Phase.PRE_COPY)
    two = replace(waiting(2, "host-a", "host-c"), phase=Phase.PREPARING)

    async def slow(host: str, request: source_pb2.TuneRequest) -> None:
        await go.wait()
        arrived.append(request.max_bandwidth_bytes_per_s)

    monkeypatch.setattr(around.agents, "tune", slow)
    (first,) = shares.due([one])
    telling = asyncio.create_task(shares.tell(first))
    assert shares.due([one, two]) == []  # it might overtake what is on its way
    assert not looks.is_set()
    go.set()
    await telling
    assert looks.is_set()
    (second,) = shares.due([one, two])
    await shares.tell(second)
    assert arrived == [100, 50]
    assert shares.due([one, two]) == []


async def test_a_limit_that_was_tuned_is_taken_away_again(around: Surroundings) -> None:
    shares = LinkShares(around.agents, {"host-z": 100}, nobody_looks)
    bounded = MigrationPolicy(max_bandwidth_bytes_per_s=10)
    one = replace(waiting(1, "host-a", "host-b"), epoch=2, phase=Phase.PRE_COPY, policy=bounded)
    assert shares.terms(one).max_bandwidth_bytes_per_s == 10
    assert shares.due([one]) == []
    assert shares.within(one, UNLIMITED) == UNLIMITED
    shares.tuned(one, UNLIMITED)
    assert shares.due([one]) == [Tuning(one, 0)]


async def test_what_another_process_tuned_without_a_word_is_left_alone(around: Surroundings) -> None:
    shares = LinkShares(around.agents, {"host-z": 100}, nobody_looks)
    report = source_pb2.AttemptReport(max_bandwidth_bytes_per_s=7)
    assert shares.due([replace(waiting(1, "host-a", "host-b"), epoch=2, phase=Phase.PRE_COPY, report=report)]) == []


async def test_what_was_tuned_is_wanted_still_by_the_next_who_drives(site: FakeSite, around: Surroundings) -> None:
    for name in ("one", "two"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "pre-copy"
    shared = replace(around, driver="orchestrator", slots=Slots(outgoing=2), bandwidth={"host-a": 10 * MIB})
    async with driving(shared) as at_work:
        first = await at_work.queue.submit(Order("one", "host-b"))
        await until(at_work.queue, first, Phase.PRE_COPY)
        await at_work.queue.tune(
            await at_work.queue.find(first.attempt), downtime_limit_ms=0, max_bandwidth_bytes_per_s=2 * MIB
        )
    assert around.store.get(first.attempt).asked.bandwidth == 2 * MIB
    async with driving(shared) as at_work:
        second = await at_work.queue.submit(Order("two", "host-c"))
        await until(at_work.queue, second, Phase.PRE_COPY)
        assert site.world.begun_with[second.attempt] == 8 * MIB
        site.world.calls.clear()
        row = await at_work.queue.find(first.attempt)
        await at_work.queue.tune(row, downtime_limit_ms=0, max_bandwidth_bytes_per_s=UNLIMITED)
        assert site.world.calls[-1] == f"Tune 0 {5 * MIB}"
        assert around.store.get(first.attempt).asked.bandwidth == 0
        site.world.script.go.set()
        await until(at_work.queue, second, Phase.COMPLETED)
