"""A host that is emptied is empty then: of what was on its way there, and what had been chosen for it, as well."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from orchestrator import admission
from orchestrator.admission import Order, admit
from orchestrator.agents import Agents
from orchestrator.attempt import Attempt, Outcome
from orchestrator.destination import Beside, find_destination
from orchestrator.drive import Drive
from orchestrator.evacuation.coming import coming_to
from orchestrator.maintenance import set_maintenance
from orchestrator.policy import MigrationPolicy
from orchestrator.preflight import ANY, Preflight
from orchestrator.surroundings import Surroundings
from tests.orchestrator.fake_agents import FakeSite
from tests.orchestrator.test_evacuations import leave, orchestrator, places, site
from vm_migration.api.v1.types_pb2 import MachineStatus

__all__ = ["site"]


@contextlib.asynccontextmanager
async def on_its_way(site: FakeSite, around: Surroundings) -> AsyncIterator[asyncio.Task[Attempt]]:
    """Have a machine on its way from host-b to host-a, of which so much is sent."""
    site.world.add("one", "host-b")
    site.world.script.hold_at = "pre-copy"
    moving = asyncio.create_task(Drive(await admit(around, Order("one", "host-a")), around).run())
    await site.world.script.reached.wait()
    site.world.script.hold_at = ""
    try:
        yield moving
    finally:
        site.world.script.go.set()
        await moving


async def test_a_machine_that_is_on_its_way_leaves_again_as_soon_as_it_is_there(
    site: FakeSite, around: Surroundings
) -> None:
    site.world.add("two", "host-a")
    async with on_its_way(site, around) as moving, orchestrator(around) as running:
        order = leave(parallel=2)
        await running.evacuations.submit(order)
        view = await running.until(order.evacuation, lambda seen: "waits for attempt" in seen.moves[1].reason)
        assert [(one.name, one.ram_bytes > 0) for one in view.moves] == [("two", True), ("one", True)]
        site.world.script.go.set()
        await moving
        assert places(site)["one"] == "host-a"
        view = await running.until(order.evacuation)
    assert (view.outcome, len(view.moves[1].attempts)) == (Outcome.COMPLETED, 1)
    assert "host-a" not in places(site).values()


async def test_one_that_never_arrives_needs_nothing(site: FakeSite, around: Surroundings) -> None:
    async with on_its_way(site, around) as moving, orchestrator(around) as running:
        order = leave()
        await running.evacuations.submit(order)
        await running.until(order.evacuation, lambda seen: bool(seen.moves[0].reason))
        site.world.script.failures = 1
        site.world.script.go.set()
        await moving
        view = await running.until(order.evacuation)
    assert (view.outcome, view.moves[0].attempts) == (Outcome.COMPLETED, ())
    assert view.moves[0].reason == "is not on host-a"
    assert places(site) == {"one": "host-b"}


async def test_how_much_is_coming_is_unknown_while_its_host_is_silent(site: FakeSite, around: Surroundings) -> None:
    site.world.add("one", "host-b")
    await admit(around, Order("one", "host-a"))
    (coming,) = await coming_to(around, "host-a")
    assert (coming.name, coming.ram_bytes > 0) == ("one", True)
    assert await coming_to(around, "host-b") == ()
    await site.stop("host-b")
    (coming,) = await coming_to(around, "host-a")
    assert (coming.name, coming.ram_bytes) == ("one", 0)


async def test_a_host_that_goes_into_maintenance_while_it_is_chosen_is_not_chosen(
    site: FakeSite, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = list[str]()

    async def found_and_emptied(
        agents: Agents, machine: MachineStatus, policy: MigrationPolicy, beside: Beside, *, by_host: bool
    ) -> Preflight:
        found = await find_destination(agents, machine, policy, beside, by_host=by_host)
        chosen.append(found.candidates[0].host)
        if len(chosen) == 1:
            set_maintenance(around.store.entries, chosen[0], on=True)
        return found

    monkeypatch.setattr(admission, "find_destination", found_and_emptied)
    site.world.add("one", "host-a")
    attempt = await admit(around, Order("one", ANY))
    assert set(chosen) == {"host-b", "host-c"}
    assert attempt.destination == chosen[1]
