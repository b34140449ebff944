"""An evacuation whose orchestrator is replaced while it lives still: the new one goes on, the old one harms nothing."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from orchestrator.attempt import Outcome
from orchestrator.driving import Driving, driving
from orchestrator.evacuation.order import EvacuationOrder
from orchestrator.evacuation.plan import Kind
from orchestrator.evacuation.view import EvacuationView
from orchestrator.store.store import Store
from orchestrator.surroundings import Surroundings
from tests.orchestrator.fake_agents import FakeSite, fake_site
from tests.orchestrator.stores import OpenStore


@pytest.fixture
async def site() -> AsyncIterator[FakeSite]:
    async with fake_site("host-a", "host-b", "host-c") as running:
        yield running


@pytest.fixture
def stores(opened: OpenStore) -> Iterator[tuple[Store, Store]]:
    with opened() as one, opened() as other:
        yield one, other


async def until(at_work: Driving, evacuation: str, moving: int | None = None) -> EvacuationView:
    async with contextlib.aclosing(at_work.evacuations.watch(evacuation)) as views:
        async for view in views:
            if view.ended or (moving is not None and sum(one.phase == "pre-copy" for one in view.moves) == moving):
                return view
    raise AssertionError(evacuation)


async def test_the_next_leader_goes_on_and_the_one_before_stops(
    site: FakeSite, around: Surroundings, stores: tuple[Store, Store]
) -> None:
    for name in ("one", "two", "three"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "pre-copy"
    order = EvacuationOrder(Kind.EVACUATE, "host-a")
    before, after = (
        replace(around, store=store, driver=f"orchestrator-{number}") for number, store in enumerate(stores)
    )
    async with driving(before, sole=True) as old:
        await old.evacuations.submit(order)
        (moving,) = [one for one in (await until(old, order.evacuation, 1)).moves if one.attempts]
        async with driving(after, sole=True) as new:
            assert (await new.evacuations.view(order.evacuation)).driver == "orchestrator-1"
            site.world.script.go.set()
            view = await until(new, order.evacuation)
            rows = stores[1].attempts(everything=True)
    assert (view.outcome, view.driver) == (Outcome.COMPLETED, "orchestrator-1")
    assert {row.driver for row in rows} == {"orchestrator-1"}
    assert sorted(row.name for row in rows) == ["one", "three", "two"]
    assert stores[0].get(moving.attempts[0]).term == 2
    assert site.world.calls.count("Begin host-a") == 3
