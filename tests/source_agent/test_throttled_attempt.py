"""An attempt that does not converge throttles its machine, and gives the time back however it ends."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from source_agent.outgoing_attempt import OutgoingAttempt
from source_agent.progress import Phase
from tests.fakes.receiving_destination import ReceivingDestination, receiving
from tests.source_agent.departures import TERMS, A, leaving
from tests.source_agent.journeys import MANY_PAGES, SlowMachine, running
from vm_migration.handover.states import State
from vm_migration.machine.port import Harvest
from vm_migration.transfer.profiles import PROFILES, Profile
from vmm.memory.dirty_bitmap import DirtyBitmap

NEVER_FITS = msgspec.structs.replace(TERMS, downtime_limit_ms=1, timeout_ms=600_000, profile="urgent")


class BusyMachine(SlowMachine):
    """All of its memory is dirty whenever it is looked at, by its vCPUs."""

    asked = 0
    """How often what is taken already was asked for."""

    enough: Callable[[], None] | None = None
    """Called from the third time on."""

    async def throttle(self, percent: int) -> None:
        self.asked += percent == self.throttle_percent
        await super().throttle(percent)
        if self.asked >= 3 and self.enough is not None:
            self.enough()

    async def harvest(self) -> Harvest:
        found = await super().harvest()
        return Harvest(DirtyBitmap.full(self.pages), found.dma, found.failure) if self.running else found


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall is one at the first boundary."""
    monkeypatch.setitem(PROFILES, "urgent", Profile("urgent", throttle_maximum=30, patience_ms=0))


async def ended(
    tmp_path: Path, meanwhile: Callable[[OutgoingAttempt, BusyMachine], None]
) -> tuple[OutgoingAttempt, BusyMachine]:
    """Run an attempt until it throttles its machine, do something to it, and return both at their end."""
    with leaving(tmp_path, State.OUTGOING) as held:
        machine = BusyMachine(held.machine.process, pages=MANY_PAGES)
        held.machine = held.custody.port = machine
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, handoffs=["ACTIVE"])
        async with receiving(there), running(held, there.address, terms=NEVER_FITS) as (attempt, task):
            while not machine.throttle_percent:
                await attempt.board.next(10)
            assert "throttle 20" in machine.calls
            meanwhile(attempt, machine)
            await task
    return attempt, machine


async def test_a_cancel_gives_the_time_back(tmp_path: Path) -> None:
    attempt, machine = await ended(tmp_path, lambda attempt, _: attempt.cancel())
    assert attempt.board.progress.phase is Phase.ABORTED
    assert machine.throttle_percent == 0
    assert machine.running
    last = max(at for at, call in enumerate(machine.calls) if call.startswith("throttle"))
    assert last < machine.calls.index("stop tracking")


async def test_a_failure_gives_the_time_back(tmp_path: Path) -> None:
    def refuse(attempt: OutgoingAttempt, machine: BusyMachine) -> None:
        del attempt
        machine.silent = 1

    attempt, machine = await ended(tmp_path, refuse)
    assert attempt.board.progress.phase is Phase.ABORTED
    assert machine.throttle_percent == 0
    assert "stop tracking" in machine.calls


async def test_a_throttled_guest_is_stopped_and_nobody_asks_for_its_time_any_more(tmp_path: Path) -> None:
    attempt, machine = await ended(tmp_path, lambda attempt, _: attempt.force())
    assert attempt.board.progress.phase is Phase.COMPLETED
    assert any(measured.throttle_percent for measured in attempt.board.progress.rounds.recent)
    paused = machine.calls.index("pause for an attempt")
    assert not [call for call in machine.calls[paused:] if call.startswith("throttle")]


async def test_what_was_taken_is_asked_for_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's process gives it back after a few seconds in which nobody did."""
    monkeypatch.setattr("source_agent.throttling._AGAIN_EVERY", 0.001)

    def until_asked_again(attempt: OutgoingAttempt, machine: BusyMachine) -> None:
        machine.enough = attempt.cancel

    _, machine = await ended(tmp_path, until_asked_again)
    assert machine.asked >= 3
