"""A cable that is pulled closes nothing; it is noticed within five seconds, and a slow link is not taken for it."""

import asyncio
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from dest_agent import answering
from source_agent import pulse
from source_agent.outgoing_attempt import OutgoingAttempt
from source_agent.progress import Outcome, Phase
from tests.fakes.cable import cable_to
from tests.fakes.receiving_destination import ReceivingDestination, receiving
from tests.source_agent.departures import TERMS, A
from tests.source_agent.journeys import MANY_PAGES, departing, running
from vm_migration.handover.states import State

PATIENT = msgspec.structs.replace(TERMS, timeout_ms=600_000, downtime_limit_ms=200_000)
"""Neither the attempt's time nor the pause's bound ends anything here."""
BOUNDED = msgspec.structs.replace(TERMS, downtime_limit_ms=1_000)
"""Its pause may last 3 s: long enough for a halt inside it, and shorter than a stall."""
SOONER = 1.0


@pytest.fixture
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what takes five seconds take one."""
    monkeypatch.setattr(pulse, "STALL", SOONER)
    monkeypatch.setattr(answering, "PROGRESS_EVERY", SOONER / 5)


def require_stalled(attempt: OutgoingAttempt) -> None:
    shown = attempt.board.progress
    assert (shown.phase, shown.outcome) == (Phase.ABORTED, Outcome.FAILED)
    assert shown.failure is not None
    assert shown.failure.code == "stream-stalled", shown.failure  # what else could end it has another code
    assert attempt.record.state is State.ABORTED


@pytest.mark.usefixtures("sooner")
@pytest.mark.parametrize("halts", ["pages 0", "barrier 0", "barrier 1", "finish"])
async def test_a_cable_pulled_while_something_is_waited_for(tmp_path: Path, halts: str) -> None:
    with departing(tmp_path, MANY_PAGES) as (held, machine):
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, halts=halts)
        async with receiving(there), cable_to(there.address) as cable:
            async with running(held, cable.address, terms=PATIENT) as (attempt, task):
                await there.halted.wait()
                cable.pull()
                pulled = monotonic()
                await task
                assert monotonic() - pulled < 10 * SOONER
            require_stalled(attempt)
            assert machine.running


@pytest.mark.usefixtures("sooner")
async def test_a_cable_pulled_while_a_hook_runs(tmp_path: Path) -> None:
    reached = asyncio.Event()

    async def hook() -> None:
        reached.set()
        await asyncio.Event().wait()

    with departing(tmp_path) as (held, _):
        there = ReceivingDestination(attempt=A)
        async with receiving(there), cable_to(there.address) as cable:
            async with running(held, cable.address, hook, terms=PATIENT) as (attempt, task):
                await reached.wait()
                cable.pull()
                pulled = monotonic()
                await task
                assert monotonic() - pulled < 10 * SOONER
            require_stalled(attempt)


async def test_it_takes_five_seconds_and_no_more(tmp_path: Path) -> None:
    with departing(tmp_path, MANY_PAGES) as (held, _):
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, halts="barrier 0")
        async with receiving(there), cable_to(there.address) as cable:
            async with running(held, cable.address, terms=PATIENT) as (attempt, task):
                await there.halted.wait()
                cable.pull()
                pulled = monotonic()
                await task
                assert monotonic() - pulled < 2 * pulse.STALL
            require_stalled(attempt)


async def test_while_the_guest_stands_still_the_bound_of_the_pause_is_shorter(tmp_path: Path) -> None:
    with departing(tmp_path, MANY_PAGES) as (held, machine):
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, halts="barrier 1")
        async with receiving(there), cable_to(there.address) as cable:
            async with running(held, cable.address, terms=BOUNDED) as (attempt, task):
                await there.halted.wait()
                cable.pull()
                pulled = monotonic()
                await task
                assert monotonic() - pulled < pulse.STALL
            assert attempt.record.pause_bound_ms == 3_000
            failure = attempt.board.progress.failure
            assert failure is not None
            assert failure.code == "pause-bound", failure
            assert machine.running


@pytest.mark.usefixtures("sooner")
async def test_a_slow_link_with_full_buffers_is_no_dead_one(tmp_path: Path) -> None:
    """Its one round takes longer than a dead stream is given, in one frame."""
    with departing(tmp_path, 256) as (held, _):
        there = ReceivingDestination(attempt=A, pages=256, handoffs=["ACTIVE"])
        async with receiving(there), cable_to(there.address) as cable:
            cable.bytes_per_second = (1 << 20) // 4
            started = monotonic()
            async with running(held, cable.address, terms=PATIENT) as (attempt, task):
                await task
            assert attempt.board.progress.outcome is Outcome.COMPLETED, attempt.board.progress.failure
            assert monotonic() - started > 2 * SOONER
        assert (there.words == 1).all()
