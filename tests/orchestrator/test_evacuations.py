"""Evacuations over a real queue and agents in memory: who moves when, where to, and what is left after a crash."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.admission import Order, admit
from orchestrator.attempt import Outcome
from orchestrator.drive import MADE_READY, WAITS, Drive
from orchestrator.evacuation.order import EvacuationOrder
from orchestrator.evacuation.plan import AHEAD, Kind, Raised
from orchestrator.evacuation.service import Evacuations
from orchestrator.evacuation.view import EvacuationView
from orchestrator.maintenance import in_maintenance, set_maintenance
from orchestrator.queueing import Slots
from orchestrator.service import AttemptQueue
from orchestrator.slot_book import SlotBook
from orchestrator.store.entries import Entry
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.store import STORE_UNUSABLE
from orchestrator.surroundings import Surroundings
from tests.orchestrator.fake_agents import FakeSite, fake_site
from vm_migration.api.v1.types_pb2 import HostFacts, HostLoad
from vm_migration.daemon.host_facts import VERSION
from vm_migration.daemon.host_offer import HostOffer
from vm_migration.errors import InvalidInput, Refused, Unreachable


@pytest.fixture
async def site() -> AsyncIterator[FakeSite]:
    async with fake_site("host-a", "host-b", "host-c") as running:
        yield running


@dataclass
class Running:
    queue: AttemptQueue
    evacuations: Evacuations

    async def until(
        self, evacuation: str, wanted: Callable[[EvacuationView], bool] = lambda view: view.ended
    ) -> EvacuationView:
        async with asyncio.timeout(20), contextlib.aclosing(self.evacuations.watch(evacuation)) as views:
            async for view in views:
                if wanted(view):
                    return view
        raise AssertionError("It ended before that")

    async def evacuated(self, order: EvacuationOrder) -> EvacuationView:
        return await self.until((await self.evacuations.submit(order)).evacuation)


@contextlib.asynccontextmanager
async def orchestrator(
    around: Surroundings, *, sole: bool = False, usual: Slots | None = None
) -> AsyncIterator[Running]:
    named, slots = replace(around, driver="orchestrator"), SlotBook(usual or Slots())
    async with (
        AttemptQueue(named, sole=sole, slots=slots) as queue,
        Evacuations(named, queue, slots, sole=sole) as evacuations,
    ):
        yield Running(queue, evacuations)


def leave(host: str = "host-a", *to: str, parallel: int = 0, retries: int = 0) -> EvacuationOrder:
    return EvacuationOrder(Kind.EVACUATE, host, to, parallel, retries=retries)


def back(host: str = "host-a", parallel: int = 0) -> EvacuationOrder:
    return EvacuationOrder(Kind.RESTORE, host, parallel=parallel)


def places(site: FakeSite) -> dict[str, str]:
    return {one.name: one.host for one in site.world.machines.values()}


async def test_a_host_is_emptied_is_in_maintenance_and_gets_back_what_left(
    site: FakeSite, around: Surroundings
) -> None:
    for name in ("one", "two", "three"):
        site.world.add(name, "host-a")
    site.world.add("other", "host-b")
    async with orchestrator(around) as running:
        gone = await running.evacuated(leave())
        assert (gone.outcome, gone.percent, gone.kind) == (Outcome.COMPLETED, 100, Kind.EVACUATE)
        assert [(one.name, one.source, one.outcome) for one in gone.moves] == [
            (name, "host-a", Outcome.COMPLETED) for name in ("one", "three", "two")
        ]
        assert "host-a" not in places(site).values()
        assert in_maintenance(around.store.entries) == {"host-a"}
        restored = await running.evacuated(back())
        assert (restored.outcome, restored.undoes) == (Outcome.COMPLETED, gone.evacuation)
    assert places(site) == {"one": "host-a", "two": "host-a", "three": "host-a", "other": "host-b"}
    assert in_maintenance(around.store.entries) == set()
    assert len(around.store.attempts(everything=True)) == 6
    assert around.store.attempts() == ()


async def test_one_machine_leaves_at_a_time_unless_more_are_asked_for(site: FakeSite, around: Surroundings) -> None:
    for name in ("one", "two", "three"):
        site.world.add(name, "host-a")
    for host in ("host-b", "host-c"):
        load = HostLoad(memory_free_bytes=60 << 30)
        site.world.script.facts[host] = HostFacts(version=VERSION, offer=HostOffer().message(), load=load)
    site.world.script.hold_at = "pre-copy"
    async with orchestrator(around) as running:
        slow = await running.evacuations.submit(leave(parallel=2))
        view = await running.until(slow.evacuation, _two_move_and_one_is_ready)
        assert view.raised[0] == Raised("host-a", "out", 2, 1)
        moving = [one.destination for one in view.moves if one.phase == "pre-copy"]
        assert sorted(moving) == ["host-b", "host-c"]
        assert sorted(one.phase for one in around.store.attempts()) == ["pre-copy", "pre-copy", "preparing"]
        assert len([call for call in site.world.calls if call.startswith("Start")]) == 2
        site.world.script.go.set()
        assert (await running.until(slow.evacuation)).outcome == Outcome.COMPLETED


async def test_a_destination_that_is_the_only_one_takes_as_many_as_leave(site: FakeSite, around: Surroundings) -> None:
    for name in ("one", "two"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "pre-copy"
    async with orchestrator(around) as running:
        order = leave("host-a", "host-b", parallel=2)
        assert (await running.evacuations.submit(order)).ended is False
        view = await running.until(order.evacuation, lambda seen: _in_phase(seen, "pre-copy") == 2)
        assert view.raised == (Raised("host-a", "out", 2, 1), Raised("host-b", "in", 2, 1))
        site.world.script.go.set()
        await running.until(order.evacuation)
    assert set(places(site).values()) == {"host-b"}


async def test_the_next_is_made_ready_and_sent_when_another_is_there(site: FakeSite, around: Surroundings) -> None:
    for name in ("one", "two", "three", "four", "five"):
        site.world.add(name, "host-a")
    async with orchestrator(around) as running:
        assert (await running.evacuated(leave(parallel=2))).outcome == Outcome.COMPLETED
    prepared = [call.split()[0] for call in site.world.calls if call.startswith(("Prepare", "Start"))]
    open_at_once = [prepared[: at + 1].count("Prepare") - prepared[: at + 1].count("Start") for at in range(10)]
    assert prepared.count("Start") == 5
    assert max(open_at_once) <= 2 + AHEAD


async def test_who_waits_behind_others_to_be_made_ready_says_so(site: FakeSite, around: Surroundings) -> None:
    for name in ("one", "two", "three", "four"):
        site.world.add(name, "host-a")
    site.world.script.prepare_waits = asyncio.Event()
    async with orchestrator(around) as running:
        order = leave("host-a", "host-b", parallel=2)
        await running.evacuations.submit(order)
        await running.until(order.evacuation, _two_are_prepared_and_two_wait)
        assert site.world.calls.count("Prepare host-b") == 2
        site.world.script.prepare_waits.set()
        view = await running.until(order.evacuation)
    assert view.outcome == Outcome.COMPLETED


async def test_a_cancelled_evacuation_starts_nothing_more_and_cancels_what_runs(
    site: FakeSite, around: Surroundings
) -> None:
    for name in ("one", "two", "three"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "pre-copy"
    async with orchestrator(around) as running:
        order = leave(parallel=2)
        await running.evacuations.submit(order)
        await running.until(order.evacuation, _two_move_and_one_is_ready)
        await running.evacuations.cancel(order.evacuation[:8])
        view = await running.until(order.evacuation)
        assert (view.outcome, {one.outcome for one in view.moves}) == (Outcome.CANCELLED, {Outcome.CANCELLED})
        with pytest.raises(Refused, match="has ended: cancelled"):
            await running.evacuations.cancel(order.evacuation)
    assert set(places(site).values()) == {"host-a"}
    assert len([call for call in site.world.calls if call.startswith("Start")]) == 2
    assert in_maintenance(around.store.entries) == {"host-a"}


async def test_an_orchestrator_that_was_killed_goes_on_with_the_evacuation(
    site: FakeSite, around: Surroundings, tmp_path: Path
) -> None:
    for name in ("one", "two", "three"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "pre-copy"
    order = leave()
    async with orchestrator(around) as running:
        await running.evacuations.submit(order)
        await running.until(order.evacuation, lambda seen: _in_phase(seen, "pre-copy") == 1)
        killed = copied(tmp_path / "orchestrator.db", tmp_path / "killed.db")  # as it lies there while that one lives
        (row,) = around.store.attempts()
    with SqliteStore(killed) as store:
        async with orchestrator(replace(around, store=store), sole=True) as running:
            assert (await running.evacuations.view(order.evacuation)).driver == "orchestrator"
            site.world.script.go.set()
            view = await running.until(order.evacuation)
        assert store.get(row.attempt).term == 2
    assert (view.outcome, [len(one.attempts) for one in view.moves]) == (Outcome.COMPLETED, [1, 1, 1])
    assert row.attempt in {one.attempts[0] for one in view.moves}
    assert "host-a" not in places(site).values()


def copied(store: Path, to: Path) -> Path:
    with contextlib.closing(sqlite3.connect(store)) as before, contextlib.closing(sqlite3.connect(to)) as after:
        before.backup(after)
    return to


def _two_move_and_one_is_ready(view: EvacuationView) -> bool:
    return _in_phase(view, "pre-copy") == 2 and any(one.reason == MADE_READY for one in view.moves)


def _two_are_prepared_and_two_wait(view: EvacuationView) -> bool:
    reasons = [one.reason for one in view.moves]
    return reasons.count(WAITS) == 2 and reasons.count("has host-b make the machine's memory ready") == 2


def _in_phase(view: EvacuationView, phase: str) -> int:
    return sum(one.phase == phase for one in view.moves)


async def test_an_attempt_that_was_written_down_and_never_entered_is_drawn_anew(
    site: FakeSite, around: Surroundings
) -> None:
    site.world.add("one", "host-a")
    order = leave()

    async def refuse(_: Order) -> None:
        raise asyncio.CancelledError

    async with orchestrator(around) as running:
        running.queue.submit = refuse  # type: ignore[method-assign, assignment]  # the process ends between both
        await running.evacuations.submit(order)
        await running.until(order.evacuation, lambda seen: bool(seen.moves[0].attempts))
    assert around.store.attempts(everything=True) == ()
    async with orchestrator(around, sole=True) as running:
        view = await running.until(order.evacuation)
    assert (view.outcome, len(view.moves[0].attempts)) == (Outcome.COMPLETED, 1)


async def test_a_machine_that_somebody_moves_already_is_waited_for(site: FakeSite, around: Surroundings) -> None:
    site.world.add("one", "host-a")
    site.world.script.hold_at = "pre-copy"
    mine = Drive(await admit(around, Order("one", "host-c")), around)
    moving = asyncio.create_task(mine.run())
    await site.world.script.reached.wait()
    async with orchestrator(around) as running:
        order = leave()
        await running.evacuations.submit(order)
        view = await running.until(order.evacuation, lambda seen: bool(seen.moves[0].reason))
        assert mine.attempt.attempt in view.moves[0].reason
        site.world.script.go.set()
        await moving
        view = await running.until(order.evacuation)
    assert (view.outcome, view.moves[0].attempts) == (Outcome.COMPLETED, ())
    assert "not on host-a" in view.moves[0].reason
    assert places(site) == {"one": "host-c"}


async def test_a_machine_that_was_lost_before_its_turn_was_not_moved(site: FakeSite, around: Surroundings) -> None:
    for name in ("one", "two"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "pre-copy"
    async with orchestrator(around) as running:
        order = leave()
        await running.evacuations.submit(order)
        await running.until(order.evacuation, lambda seen: _in_phase(seen, "pre-copy") == 1)
        site.world.find("two", "host-a").state = "LOST"
        site.world.script.go.set()
        view = await running.until(order.evacuation)
    moved, lost = view.moves
    assert (moved.outcome, lost.outcome, lost.attempts) == (Outcome.COMPLETED, Outcome.LOST, ())
    assert "lost on host-a" in lost.reason
    assert (view.outcome, view.exit_code) == (Outcome.LOST, 7)


async def test_what_fails_is_tried_again_elsewhere_and_the_worst_machine_says_how_it_ended(
    site: FakeSite, around: Surroundings
) -> None:
    site.world.add("one", "host-a")
    site.world.script.failures = 1
    quick = replace(around, chance=lambda: 0.0)
    async with orchestrator(quick) as running:
        view = await running.evacuated(leave(retries=1))
        assert (view.outcome, len(view.moves[0].attempts)) == (Outcome.COMPLETED, 2)
        first, second = (around.store.get(one).destination for one in view.moves[0].attempts)
        assert {first, second} == {"host-b", "host-c"}
        site.world.add("two", "host-a")
        site.world.add("three", "host-a")
        site.world.script.failures = 1
        view = await running.evacuated(leave())
    assert sorted(str(one.outcome) for one in view.moves) == ["completed", "failed"]
    assert view.outcome == Outcome.FAILED


async def test_what_cannot_be_asked_for_leaves_nothing_behind(site: FakeSite, around: Surroundings) -> None:
    site.world.add("one", "host-a")
    async with orchestrator(around) as running:
        for order, words in (
            (leave("host-z"), "host-z"),
            (leave("host-a", "host-y"), "host-y"),
            (leave("host-a", "host-b", "host-a"), "host-a"),
            (leave(parallel=65), "65"),
            (leave(retries=99), "99"),
        ):
            with pytest.raises(InvalidInput, match=words):
                await running.evacuations.submit(order)
        with pytest.raises(Refused, match="No evacuation of host-a is known"):
            await running.evacuations.submit(back())
        await site.stop("host-a")
        with pytest.raises(Unreachable):
            await running.evacuations.submit(leave())
    assert around.store.entries.below("") == ()


async def test_a_host_has_one_open_evacuation_and_asking_twice_is_asking_once(
    site: FakeSite, around: Surroundings
) -> None:
    site.world.add("one", "host-a")
    site.world.script.hold_at = "pre-copy"
    async with orchestrator(around) as running:
        order = leave()
        first = await running.evacuations.submit(order)
        assert (await running.evacuations.submit(order)).evacuation == first.evacuation
        set_maintenance(around.store.entries, "host-a", on=False)  # somebody thinks better of it
        for another in (leave(), back()):
            with pytest.raises(Refused, match=first.evacuation):
                await running.evacuations.submit(another)
        assert in_maintenance(around.store.entries) == set()
        site.world.script.go.set()
        await running.until(first.evacuation)
    assert site.world.calls.count("Begin host-a") == 1


async def test_a_host_stays_in_maintenance_where_nobody_knows_whether_its_evacuation_was_entered(
    site: FakeSite, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.world.add("one", "host-a")
    written = around.store.entries.put_all

    def unanswered(entries: Iterable[Entry]) -> None:
        written(entries)
        raise Refused(STORE_UNUSABLE, "The store did not answer")

    async with orchestrator(around) as running:
        with monkeypatch.context() as patched:
            patched.setattr(around.store.entries, "put_all", unanswered)
            with pytest.raises(Refused, match="did not answer"):
                await running.evacuations.submit(leave())
        assert in_maintenance(around.store.entries) == {"host-a"}


async def test_no_machine_goes_to_a_host_in_maintenance_unless_that_is_named(
    site: FakeSite, around: Surroundings
) -> None:
    for name in ("one", "two", "three"):
        site.world.add(name, "host-a")
    set_maintenance(around.store.entries, "host-c", on=True)
    async with orchestrator(around) as running:
        await running.evacuated(leave(parallel=3))
        assert set(places(site).values()) == {"host-b"}
        await running.evacuated(leave("host-b", "host-c"))
    assert set(places(site).values()) == {"host-c"}


async def test_an_empty_host_is_evacuated_at_once(site: FakeSite, around: Surroundings) -> None:
    async with orchestrator(around) as running:
        view = await running.evacuated(leave())
    assert (view.outcome, view.percent, view.moves) == (Outcome.COMPLETED, 100, ())
