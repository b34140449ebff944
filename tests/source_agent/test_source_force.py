"""Force switches over at once, also in the middle of a round, and nothing of the machine is missing then."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from source_agent.outgoing_attempt import OutgoingAttempt, StartOrder
from source_agent.progress import Phase
from tests.fakes.receiving_destination import ReceivingDestination, receiving
from tests.source_agent.departures import TERMS, A
from tests.source_agent.journeys import MANY_PAGES, departing, running, until
from vm_migration.errors import Refused
from vm_migration.transfer.convergence import RoundMeasurement

SLOW = msgspec.structs.replace(TERMS, max_bandwidth_bytes_per_s=8 << 20, timeout_ms=600_000)
"""The first round takes two seconds."""


async def in_the_first_round(attempt: OutgoingAttempt) -> None:
    await until(attempt, Phase.PRE_COPY)
    while not attempt.board.progress.wire_bytes:
        await attempt.board.next(10)


def require_whole(there: ReceivingDestination, rounds: tuple[RoundMeasurement, ...]) -> None:
    """Check that every page came, once, and what was told of the rounds."""
    assert (there.words == 1).all()
    assert there.image.received_pages == MANY_PAGES
    assert sum(each.sent_pages + each.zero_pages for each in rounds) == MANY_PAGES


async def test_a_round_is_cut_and_the_rest_of_it_goes_with_the_last(tmp_path: Path) -> None:
    with departing(tmp_path, MANY_PAGES) as (held, machine):
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, handoffs=["ACTIVE"])
        async with receiving(there), running(held, there.address, terms=SLOW) as (attempt, task):
            await in_the_first_round(attempt)
            attempt.force()
            attempt.force()
            await until(attempt, Phase.STOPPING)
            cut = attempt.board.progress.rounds.recent[0]
            assert 0 < cut.sent_pages < MANY_PAGES
            assert cut.sent_pages + cut.unsent_pages == MANY_PAGES
            await task
            assert attempt.board.progress.phase is Phase.COMPLETED
        require_whole(there, attempt.board.progress.rounds.recent[:2])
        assert there.announced[:2] == [MANY_PAGES, cut.unsent_pages]
        assert attempt.record.pause_bound_ms >= 10_000  # max(3 x the standstill expected, 10 s)
        assert machine.calls.count("pause for an attempt") == 1


async def test_an_older_destination_gets_the_whole_round_first(tmp_path: Path) -> None:
    with departing(tmp_path, MANY_PAGES) as (held, _):
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, handoffs=["ACTIVE"], features=())
        async with receiving(there), running(held, there.address, terms=SLOW) as (attempt, task):
            await in_the_first_round(attempt)
            attempt.force()
            await task
            assert attempt.board.progress.phase is Phase.COMPLETED
        require_whole(there, attempt.board.progress.rounds.recent)
        assert attempt.record.pause_bound_ms >= 10_000


async def test_the_end_of_the_time_forces_in_the_middle_of_a_round(tmp_path: Path) -> None:
    """It was looked at between two rounds alone: a round of an hour was sent to its end."""
    terms = msgspec.structs.replace(SLOW, timeout_ms=500, force_on_timeout=True)
    with departing(tmp_path, MANY_PAGES) as (held, _):
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, handoffs=["ACTIVE"])
        async with receiving(there), running(held, there.address, terms=terms) as (attempt, task):
            await task
            assert attempt.board.progress.phase is Phase.COMPLETED
        assert attempt.board.progress.rounds.recent[0].unsent_pages > 0
        require_whole(there, attempt.board.progress.rounds.recent[:2])


async def test_an_attempt_whose_time_is_over_before_it_is_started_is_forced_and_not_ended(tmp_path: Path) -> None:
    """A destination that prepared for longer than `--timeout` made `--on-timeout force` a failure."""
    terms = msgspec.structs.replace(TERMS, timeout_ms=1, force_on_timeout=True)
    with departing(tmp_path, MANY_PAGES) as (held, _):
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, handoffs=["ACTIVE"])
        async with receiving(there), running(held, "", terms=terms) as (attempt, task):
            asyncio.get_running_loop().call_later(
                0.05, attempt.start, StartOrder(there.address, there.address, b"ticket")
            )
            await task
            assert attempt.board.progress.phase is Phase.COMPLETED, attempt.board.progress.failure
        assert (there.words == 1).all()


async def test_a_cut_that_is_awaited_does_not_wait_for_the_bandwidth(tmp_path: Path) -> None:
    terms = msgspec.structs.replace(SLOW, max_bandwidth_bytes_per_s=1 << 10)  # a frame takes a quarter of an hour
    with departing(tmp_path, MANY_PAGES) as (held, _):
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, handoffs=["ACTIVE"])
        async with receiving(there), running(held, there.address, terms=terms) as (attempt, _task):
            await in_the_first_round(attempt)
            attempt.tune(downtime_limit_ms=0, max_bandwidth_bytes_per_s=1 << 30)
            attempt.force()
            await until(attempt, Phase.COMPLETED)


async def test_before_the_rounds_and_after_the_end_it_is_refused_with_the_reason(tmp_path: Path) -> None:
    with departing(tmp_path) as (held, _):
        async with running(held, "") as (attempt, _):
            with pytest.raises(Refused, match="begun: there is no round to end") as refusal:
                attempt.force()
            assert refusal.value.code == "not-in-rounds"
            await attempt.cancelled(10)
        with pytest.raises(Refused, match="aborted: there is no round to end"):
            attempt.force()


async def test_limits_that_come_too_late_are_refused_and_a_new_driver_is_not(tmp_path: Path) -> None:
    """They were accepted "from now on", and nothing was done with them."""
    with departing(tmp_path) as (held, _):
        async with running(held, "") as (attempt, _):
            attempt.tune(downtime_limit_ms=400, max_bandwidth_bytes_per_s=0)
            await attempt.cancelled(10)
        with pytest.raises(Refused, match="aborted: there is no round that a limit would change"):
            attempt.tune(downtime_limit_ms=500, max_bandwidth_bytes_per_s=0)
        attempt.tune(downtime_limit_ms=0, max_bandwidth_bytes_per_s=0)  # as a driver tells its term
