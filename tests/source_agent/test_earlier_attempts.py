"""An attempt of an earlier life: its destination is asked before anything is ended, and what the table says follows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from source_agent.doubts import Doubts
from source_agent.outgoing_attempt import OutgoingAttempt, Surroundings
from source_agent.progress import Outcome, Phase
from source_agent.terms import Terms
from tests.fakes.fake_destination import FakeDestination, served
from tests.fakes.fake_machine import MACHINE, FakeMachine, Held
from tests.source_agent.departures import SECRET, TERMS, A, leaving
from tests.source_agent.journeys import no_hook
from vm_migration.api.v1.destination_pb2 import IncomingReport
from vm_migration.errors import Stale
from vm_migration.handover.evidence import ProcessAnswer
from vm_migration.handover.ownership import taken
from vm_migration.handover.record import Record, encode
from vm_migration.handover.states import State
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.port import Stop
from vmm.process.identity import boot_id

NOW = 1_800_000_000.0
BUSY = 10.0
"""Seconds for which this machine may be busy with other things; the attempt's own deadline is 59 away."""
PREPARED = IncomingReport(state="PREPARED", highest_epoch=2, process_alive=True)
READY = IncomingReport(state="READY", highest_epoch=2, pause=1, process_alive=True, whole=True)


def begun(seconds_ago: float, destination: FakeDestination) -> Terms:
    return msgspec.structs.replace(
        TERMS,
        timeout_ms=60_000,
        began_at=NOW - seconds_ago,
        control_address=destination.address,
        bulk_address=destination.address,
    )


@asynccontextmanager
async def recovering(
    held: Held, destination: FakeDestination, *, seconds_ago: float = 1.0, doubts: Doubts | None = None
) -> AsyncIterator[tuple[OutgoingAttempt, "asyncio.Task[None]"]]:
    around = Surroundings(None, no_hook, 1e9, boot_id(), wall=lambda: NOW)
    attempt = OutgoingAttempt(held.custody, begun(seconds_ago, destination), around, doubts=doubts)
    task = asyncio.create_task(attempt.recover())
    try:
        yield attempt, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def unheard(attempt: OutgoingAttempt) -> None:
    while not attempt.unheard:
        await attempt.board.next(1)


@pytest.mark.parametrize("report", [PREPARED, READY, IncomingReport(state="DISCARDED", highest_epoch=2)])
async def test_rounds_that_were_cut_short_end_in_aborted_once_the_destination_was_heard(
    tmp_path: Path, report: IncomingReport
) -> None:
    with leaving(tmp_path, State.OUTGOING) as held:
        async with served(FakeDestination(report=report)) as there, recovering(held, there) as (attempt, task):
            await task
            assert (attempt.record.state, held.machine.running) == (State.ABORTED, True)
            assert attempt.board.progress.outcome is Outcome.FAILED


async def test_a_silent_destination_is_waited_for_until_the_attempts_own_deadline(tmp_path: Path) -> None:
    """ABORTED was written at once, whatever the destination had."""
    with leaving(tmp_path, State.OUTGOING) as held:
        async with served(FakeDestination()) as there, recovering(held, there, seconds_ago=55.0) as (attempt, task):
            await unheard(attempt)
            assert (attempt.record.state, held.machine.running) == (State.OUTGOING, True)
            assert "waits for host-b to answer" in attempt.board.progress.reason
            await task
            assert attempt.record.state is State.ABORTED


async def test_a_guest_that_was_stopped_before_its_journal_said_so_waits_no_longer_than_one_whose_journal_did(
    tmp_path: Path,
) -> None:
    """Its agent died between the pause and STOPPED: it stood still until the attempt's own deadline."""
    with leaving(tmp_path, State.OUTGOING) as held:
        held.machine.running = False
        async with served(FakeDestination()) as there, recovering(held, there) as (attempt, task):
            async with asyncio.timeout(1.0 + BUSY):
                await task
            assert (attempt.record.state, held.machine.running) == (State.ABORTED, True)


async def test_a_contradiction_is_not_forgotten_when_its_other_host_falls_silent(tmp_path: Path) -> None:
    """The attempt's deadline was over: the guest was resumed beside the copy that its destination had told of."""
    active = IncomingReport(state="ACTIVE", highest_epoch=2, process_alive=True)
    with leaving(tmp_path, State.OUTGOING) as held:
        there, doubts = FakeDestination(report=active), Doubts()
        async with served(there), recovering(held, there, seconds_ago=61.0, doubts=doubts) as (attempt, _):
            await unheard(attempt)
            assert not held.machine.running
            there.report = None
            async with asyncio.timeout(10.0):
                for _ in range(2):
                    attempt.hurry()
                    await unheard(attempt)
            assert (attempt.record.state, held.machine.running) == (State.OUTGOING, False)
            assert doubts.text(MACHINE).startswith("contradiction")


async def test_a_cancel_does_not_wait_for_a_silent_destination(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OUTGOING) as held:
        async with served(FakeDestination()) as there, recovering(held, there) as (attempt, task):
            await unheard(attempt)
            await attempt.cancelled(1.0)
            await task
            assert attempt.board.progress.outcome is Outcome.CANCELLED


async def test_a_destination_that_comes_back_is_heard_when_somebody_wants_it(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OUTGOING) as held:
        async with served(FakeDestination()) as there, recovering(held, there) as (attempt, task):
            await unheard(attempt)
            there.report = PREPARED
            attempt.hurry()
            await task
            assert attempt.record.state is State.ABORTED


@pytest.mark.parametrize("state", ["ACTIVATING", "ACTIVE"])
async def test_what_cannot_be_pauses_the_machine_and_pages_and_frees_nothing(tmp_path: Path, state: str) -> None:
    doubts = Doubts()
    with leaving(tmp_path, State.OUTGOING) as held:
        there = FakeDestination(report=IncomingReport(state=state, highest_epoch=2, process_alive=True))
        async with served(there), recovering(held, there, doubts=doubts) as (attempt, _):
            await unheard(attempt)
            assert (attempt.record.state, held.machine.running) == (State.OUTGOING, False)
            assert doubts.text(MACHINE).startswith("contradiction: ")
            assert "host-b" in attempt.board.progress.reason
            assert held.directory.path.exists()


async def test_a_destination_that_has_seen_more_of_this_journal_than_it_holds_is_believed(tmp_path: Path) -> None:
    """The host was restored from a snapshot: what its journal says is past, and acting on it could be a second copy."""
    doubts = Doubts()
    with leaving(tmp_path, State.OUTGOING) as held:
        there = FakeDestination(report=Stale("journal-rolled-back", "Its journal stood at record 9 before"))
        async with served(there), recovering(held, there, seconds_ago=1e6, doubts=doubts) as (attempt, _):
            await unheard(attempt)
            assert (attempt.record.state, held.machine.running) == (State.OUTGOING, False)
            assert "record 9" in doubts.text(MACHINE)


async def test_a_destination_whose_own_journal_was_rolled_back_is_not(tmp_path: Path) -> None:
    doubts = Doubts()
    with leaving(tmp_path, State.OUTGOING) as held:
        there = FakeDestination(
            report=IncomingReport(state="PREPARED", sequence=11, highest_epoch=2),
            first_reports=[IncomingReport(sequence=12)],
        )
        async with served(there), recovering(held, there, doubts=doubts) as (attempt, _):
            async with asyncio.timeout(10):
                while not doubts.text(MACHINE):
                    await attempt.board.next(0.1)
            assert "stands at record 11, and stood at 12 before" in doubts.text(MACHINE)
            assert (attempt.record.state, held.machine.running) == (State.OUTGOING, False)


class Stopped(FakeMachine):
    """Tells when it was stopped, as a machine does that stands still already: so long before it is asked."""

    standing_ms = 0

    async def pause(self, *, for_attempt: bool) -> Stop:
        assert for_attempt
        return Stop(self.pause_number, False, loop_ns() - self.standing_ms * 1_000_000)


@pytest.mark.parametrize(("standing_ms", "end"), [(100, State.RETIRED), (5_000, State.ABORTED)])
async def test_a_stop_is_released_to_a_ready_destination_within_its_bound_only(
    tmp_path: Path, standing_ms: int, end: State
) -> None:
    with leaving(tmp_path, State.STOPPED) as held:
        machine = Stopped(held.machine.process, running=False, pause_number=1)
        machine.standing_ms = standing_ms
        held.custody.port = machine
        there = FakeDestination(report=READY, handoffs=["ACTIVE"])
        async with served(there), recovering(held, there) as (attempt, task):
            await task
            assert attempt.record.state is end
            assert there.secrets == ([SECRET] if end is State.RETIRED else [])
            assert machine.running is (end is State.ABORTED)


async def test_a_stop_waits_no_longer_for_a_silent_destination_than_its_bound(tmp_path: Path) -> None:
    with leaving(tmp_path, State.STOPPED) as held:
        async with served(FakeDestination()) as there, recovering(held, there) as (attempt, task):
            async with asyncio.timeout(held.custody.record.pause_bound_ms / 1000 + BUSY):
                await task
            assert (attempt.record.state, held.machine.running) == (State.ABORTED, True)


def taken_there() -> IncomingReport:
    answer = ProcessAnswer("there", 1, running=False, pause=1)
    ready = Record(
        machine=MACHINE,
        state=State.READY,
        attempt=A,
        epoch=2,
        highest_epoch=2,
        pause=1,
        instance="there",
        peer="host-a",
    )
    record = taken(ready, highest_seen=2, process=answer, reason="host-a is off")
    return IncomingReport(
        state="TAKEN", highest_epoch=3, process_alive=True, record=encode(record).decode(), last_state="TAKEN"
    )


@pytest.mark.parametrize("state", [State.OUTGOING, State.RELEASED])
async def test_a_copy_of_a_machine_that_was_taken_elsewhere_retires(tmp_path: Path, state: State) -> None:
    with leaving(tmp_path, state) as held:
        there = FakeDestination(report=taken_there(), handoffs=[Stale("stale-epoch", "It is at epoch 3")])
        async with served(there), recovering(held, there) as (attempt, task):
            await task
            assert attempt.record.state is State.RETIRED
            shown = attempt.board.progress
            assert (shown.phase, shown.failure is not None) == (Phase.ABORTED, True)
            assert not held.directory.path.exists()


async def test_a_released_machine_whose_destination_knows_nothing_of_it_pages(tmp_path: Path) -> None:
    doubts = Doubts()
    with leaving(tmp_path, State.RELEASED) as held:
        there = FakeDestination(
            report=IncomingReport(state="DISCARDED", highest_epoch=2), handoffs=[Stale("wrong-state", "Discarded")]
        )
        async with served(there), recovering(held, there, doubts=doubts) as (attempt, _):
            async with asyncio.timeout(10):
                while not doubts.text(MACHINE):
                    await attempt.board.next(0.1)
            assert attempt.record.state is State.RELEASED
            assert held.directory.path.exists()
