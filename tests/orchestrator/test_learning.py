"""Attempts that only the agents know: a store that never saw them, of a command and of a daemon."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import learning
from orchestrator.admission import Order, admit
from orchestrator.attempt import Attempt, Outcome, Phase
from orchestrator.desk import Desk, LocalDesk, follow
from orchestrator.drive import Drive
from orchestrator.learning import NOT_ANSWERED_YET, listing
from orchestrator.store.sqlite import SqliteStore
from orchestrator.surroundings import Surroundings, ignore
from tests.orchestrator.fake_agents import FakeSite
from tests.orchestrator.test_orchestrator_daemon import daemon
from vm_migration.errors import InvalidInput, Refused, Unreachable

DEADLINE = 4.0
"""Seconds; the calls to a host that is frozen have five and ten."""
MakeDesk = Callable[[Surroundings], contextlib.AbstractAsyncContextManager[Desk]]


@contextlib.asynccontextmanager
async def local(around: Surroundings) -> AsyncIterator[Desk]:
    yield LocalDesk(around, "viaduct orchestrator")


@contextlib.asynccontextmanager
async def held(site: FakeSite, around: Surroundings, phase: str) -> AsyncIterator[Attempt]:
    """Have an attempt that another driver, with another store, holds in a phase."""
    site.world.add("guest", "host-a")
    site.world.script.hold_at = phase
    drive = Drive(await admit(around, Order("guest", "host-b")), around)
    task = asyncio.create_task(drive.run())
    await site.world.script.reached.wait()
    yield drive.attempt
    site.world.script.go.set()
    await task


@pytest.fixture
def elsewhere(around: Surroundings, tmp_path: Path) -> Iterator[Surroundings]:
    with SqliteStore(tmp_path / "another.db") as store:
        yield replace(around, store=store, driver="cli-elsewhere-1")


@pytest.mark.parametrize("make", [local, daemon])
async def test_an_attempt_of_another_store_is_listed_shown_watched_and_forced(
    site: FakeSite, around: Surroundings, elsewhere: Surroundings, make: MakeDesk
) -> None:
    async with held(site, around, "pre-copy") as attempt, make(elsewhere) as desk:
        found = await desk.attempts(everything=False)
        assert [(one.attempt, one.phase, one.driver) for one in found.attempts] == [
            (attempt.attempt, Phase.PRE_COPY, "")
        ]
        assert found.silent == {}
        shown = await desk.attempt(attempt.attempt[:6])
        assert (shown.name, shown.source, shown.destination, shown.epoch) == ("guest", "host-a", "host-b", 2)
        assert await desk.events(shown) == ()
        phases: list[Phase] = []
        async with contextlib.aclosing(desk.watch(shown)) as changes:
            async for change in changes:
                if not phases:
                    await desk.force(shown)
                phases.append(change.phase)
        assert phases[-1] == Phase.COMPLETED
        assert (await desk.attempts(everything=False)).attempts == ()


async def test_what_has_ended_in_the_store_is_not_learned_again_from_a_host_that_does_not_know_it_yet(
    site: FakeSite, around: Surroundings, elsewhere: Surroundings
) -> None:
    async with held(site, around, "pre-copy") as attempt:
        row = elsewhere.store.open_attempt(replace(attempt, driver=elsewhere.driver))
        found = await listing(elsewhere, everything=False)
        assert [(one.attempt, one.driver) for one in found.attempts] == [(row.attempt, elsewhere.driver)]
        elsewhere.store.save(row.to(Phase.COMPLETED, Outcome.COMPLETED), 200.0)
        assert (await listing(elsewhere, everything=False)).attempts == ()
        (kept,) = (await listing(elsewhere, everything=True)).attempts
        assert kept.ended


@pytest.mark.parametrize("make", [local, daemon])
async def test_an_attempt_of_another_store_is_cancelled(
    site: FakeSite, around: Surroundings, elsewhere: Surroundings, make: MakeDesk
) -> None:
    async with held(site, around, "pre-copy") as attempt, make(elsewhere) as desk:
        cancelled = await desk.cancel(await desk.attempt(attempt.attempt))
        assert cancelled.outcome == Outcome.CANCELLED
    assert around.store.get(attempt.attempt).outcome == Outcome.CANCELLED


@pytest.mark.parametrize("make", [local, daemon])
async def test_a_host_that_is_silent_is_named_and_not_taken_for_empty(
    site: FakeSite, around: Surroundings, elsewhere: Surroundings, make: MakeDesk
) -> None:
    async with held(site, around, "pre-copy") as attempt, make(elsewhere) as desk:
        with pytest.raises(InvalidInput) as unknown:
            await desk.attempt("ffffffff")
        assert unknown.value.code == "unknown-attempt"
        await site.stop("host-b")
        found = await desk.attempts(everything=False)
        assert ([one.attempt for one in found.attempts], list(found.silent)) == ([attempt.attempt], ["host-b"])
        with pytest.raises(Unreachable, match="host-b did not answer") as silent:
            await desk.attempt("ffffffff")
        assert silent.value.code == "host-silent"


@pytest.mark.parametrize("make", [local, daemon])
async def test_a_list_shows_what_is_known_without_waiting_for_a_host_that_is_frozen(
    site: FakeSite, around: Surroundings, elsewhere: Surroundings, make: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.world.script.frozen.add("host-a")
    monkeypatch.setattr(learning, "LISTED_SECONDS", 1.0)
    async with held(site, around, "pre-copy") as attempt, make(elsewhere) as desk:
        left = elsewhere.store.open_attempt(replace(attempt, driver="cli-gone-1", heartbeat=0.0, machine="another"))
        async with asyncio.timeout(DEADLINE):
            found = await desk.attempts(everything=False)
        assert [one.attempt for one in found.attempts] == [left.attempt]
        (error,) = found.silent.values()
        assert (list(found.silent), error.code) == (["host-a"], NOT_ANSWERED_YET)
        assert "has not answered within 1 s" in error.message
        site.world.script.thawed.set()
        assert (await desk.attempts(everything=False)).silent == {}


async def test_nobody_waits_for_what_nobody_drives(around: Surroundings, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    row = await admit(around, Order("guest", "host-b"))
    later = replace(around, clock=lambda: around.clock() + 60, driver="cli-later-1")
    desk = LocalDesk(later, "viaduct orchestrator")
    with pytest.raises(Refused, match="Nobody drives") as gone:
        await follow(desk.watch(row), ignore)
    assert gone.value.code == "driver-gone"
    assert "nobody drives it" in (await desk.attempt(row.attempt)).reason
    assert (await desk.cancel(row)).outcome == Outcome.CANCELLED
    assert around.store.attempts() == ()


async def test_two_who_ask_for_one_machine_at_once_get_one_attempt(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    drivers = [replace(around, driver=f"cli-{number}") for number in range(3)]
    asked = [admit(one, Order("guest", "host-b")) for one in drivers]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    (winner,) = [one for one in answers if isinstance(one, Attempt)]
    losers = [one for one in answers if isinstance(one, Refused)]
    assert len(losers) == 2
    assert {(one.code, f"held by {winner.driver}" in one.message) for one in losers} == {("attempt-open", True)}
