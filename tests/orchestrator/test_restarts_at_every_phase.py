"""A daemon that is killed in any phase of an attempt, and its next life, which is alone under its name.

Killed is: its tasks end between two steps and nothing is let go; the heartbeat in the store is as fresh as it was.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from orchestrator.admission import Order, admit
from orchestrator.attempt import Attempt, Outcome, Phase
from orchestrator.desk import follow
from orchestrator.drive import Drive
from orchestrator.service import AttemptQueue
from orchestrator.surroundings import Surroundings, ignore
from tests.orchestrator.fake_agents import FakeSite

BEFORE_SIDE_EFFECTS = (Phase.QUEUED, Phase.PREFLIGHT, Phase.BEGINNING)
RUNNING = (Phase.BEGUN, Phase.PRE_COPY, Phase.STOPPING, Phase.VERIFYING, Phase.RELEASING, Phase.HANDING_OVER)


@pytest.fixture
def daemon_around(around: Surroundings) -> Surroundings:
    return replace(around, driver="orchestrator")


async def killed_at(site: FakeSite, around: Surroundings, phase: Phase) -> Attempt:
    """Return the row that a driver left which was killed in a phase."""
    site.world.add("guest", "host-a")
    script = site.world.script
    script.hold_at = phase.value
    if phase == Phase.PREPARING:
        script.prepare_waits = asyncio.Event()
    reached = asyncio.Event()

    def observe(attempt: Attempt) -> None:
        if attempt.phase == phase:
            reached.set()

    drive = Drive(await admit(around, Order("guest", "host-b")), replace(around, observe=observe))
    if phase != Phase.QUEUED:
        task = asyncio.create_task(drive.run())
        await reached.wait()
        if phase == Phase.PREPARING:
            await script.reached.wait()
        task.cancel()
        await asyncio.wait({task})
    row = around.store.get(drive.attempt.attempt)
    assert (row.driver, row.term) == ("orchestrator", 1)
    return row


@contextlib.asynccontextmanager
async def next_life(around: Surroundings) -> AsyncIterator[AttemptQueue]:
    async with AttemptQueue(around, sole=True) as queue:
        yield queue


async def ended(queue: AttemptQueue, row: Attempt) -> Attempt:
    async with asyncio.timeout(20):
        return await follow(queue.watch(row.attempt), ignore) or row


@pytest.mark.parametrize("phase", [*BEFORE_SIDE_EFFECTS, *RUNNING])
async def test_it_goes_on_at_once_in_the_next_term(site: FakeSite, daemon_around: Surroundings, phase: Phase) -> None:
    row = await killed_at(site, daemon_around, phase)
    if phase == Phase.BEGUN:  # its rounds were started, and the daemon died before it heard of it
        await site.world.script.reached.wait()
    async with next_life(daemon_around) as queue:
        taken = daemon_around.store.get(row.attempt)
        assert (taken.driver, taken.term) == ("orchestrator", 2)
        site.world.script.go.set()
        last = await ended(queue, row)
    assert (last.outcome, last.term) == (Outcome.COMPLETED, 2), last
    assert site.world.calls.count(f"Prepare {last.destination}") == 1
    assert [one.sequence for one in daemon_around.store.events(row.attempt)] == list(
        range(1, len(daemon_around.store.events(row.attempt)) + 1)
    )


async def test_what_was_being_prepared_is_ended_and_discarded(site: FakeSite, daemon_around: Surroundings) -> None:
    row = await killed_at(site, daemon_around, Phase.PREPARING)
    async with next_life(daemon_around) as queue:
        last = await ended(queue, row)
    assert (last.outcome, last.term) == (Outcome.FAILED, 2)
    assert last.error is not None
    assert last.error.code == "driver-gone"
    assert site.world.calls[-2:] == ["Cancel", "Discard ABORTED"]
    assert site.world.incoming[row.attempt] == "DISCARDED"
    assert site.world.terms[row.attempt] == 2


@pytest.mark.parametrize("phase", [*BEFORE_SIDE_EFFECTS, Phase.PREPARING, Phase.BEGUN, Phase.PRE_COPY])
async def test_a_wish_to_cancel_outlives_the_daemon(site: FakeSite, daemon_around: Surroundings, phase: Phase) -> None:
    row = await killed_at(site, daemon_around, phase)
    daemon_around.store.request_cancel(row.attempt)
    async with next_life(daemon_around) as queue:
        last = await ended(queue, row)
    assert (last.phase, last.outcome) == (Phase.ABORTED, Outcome.CANCELLED)
    assert daemon_around.store.owners() == ()
    assert site.world.incoming.get(row.attempt, "DISCARDED") == "DISCARDED"
