"""An attempt that does not converge throttles vCPUs or devices, and gives the time back however it ends."""

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
from vmm.process.control import ThrottledDevices

DEVICES_EXCEED = msgspec.structs.replace(
    TERMS, downtime_limit_ms=120, timeout_ms=600_000, profile="urgent", max_bandwidth_bytes_per_s=100 << 20
)
NEVER_FITS = msgspec.structs.replace(TERMS, downtime_limit_ms=1, timeout_ms=600_000, profile="urgent")


class BusyMachine(SlowMachine):
    """All of its memory is dirty whenever it is looked at, by its vCPUs or by a device that can be held."""

    by_device = False

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
        if not self.running:
            return found
        full = DirtyBitmap.full(self.pages)
        return Harvest(found.cpu, full, None) if self.by_device else Harvest(full, found.dma, None)

    async def throttle_devices(self, percent: int) -> None:
        held = self.device_throttle
        self.asked += held is not None and percent == held.percent
        await super().throttle_devices(percent)
        if self.asked >= 3 and self.enough is not None:
            self.enough()

    @property
    def held(self) -> int:
        """What is taken from vCPUs or devices."""
        devices = 0 if self.device_throttle is None else self.device_throttle.percent
        return devices or self.throttle_percent or 0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall is one at the first boundary."""
    monkeypatch.setitem(PROFILES, "urgent", Profile("urgent", 30, patience_ms=0, device_maximum=30))


@pytest.fixture(params=["vCPUs", "a device"])
def by_device(request: pytest.FixtureRequest) -> bool:
    """Who dirties."""
    return str(request.param) == "a device"


async def ended(
    tmp_path: Path, meanwhile: Callable[[OutgoingAttempt, BusyMachine], None], *, by_device: bool
) -> tuple[OutgoingAttempt, BusyMachine]:
    """Run an attempt until it throttles its machine, do something to it, and return both at their end."""
    terms = DEVICES_EXCEED if by_device else NEVER_FITS
    with leaving(tmp_path, State.OUTGOING) as held:
        machine = BusyMachine(held.machine.process, pages=MANY_PAGES)
        machine.by_device = by_device
        machine.device_throttle = ThrottledDevices(percent=0, slowed=("nic0",), at_full_speed=())
        held.machine = held.custody.port = machine
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, handoffs=["ACTIVE"])
        async with receiving(there), running(held, there.address, terms=terms) as (attempt, task):
            while not machine.held:
                await attempt.board.next(10)
            assert ("throttle devices 20" if by_device else "throttle 20") in machine.calls
            assert (machine.throttle_percent == 0) is by_device
            meanwhile(attempt, machine)
            await task
    return attempt, machine


async def test_a_cancel_gives_the_time_back(tmp_path: Path, *, by_device: bool) -> None:
    attempt, machine = await ended(tmp_path, lambda attempt, _: attempt.cancel(), by_device=by_device)
    assert attempt.board.progress.phase is Phase.ABORTED
    assert machine.held == 0
    assert machine.running
    last = max(at for at, call in enumerate(machine.calls) if call.startswith("throttle"))
    assert last < machine.calls.index("stop tracking")


async def test_a_failure_gives_the_time_back(tmp_path: Path, *, by_device: bool) -> None:
    def refuse(attempt: OutgoingAttempt, machine: BusyMachine) -> None:
        del attempt
        machine.silent = 1

    attempt, machine = await ended(tmp_path, refuse, by_device=by_device)
    assert attempt.board.progress.phase is Phase.ABORTED
    assert machine.held == 0
    assert "stop tracking" in machine.calls


async def test_a_throttled_guest_is_stopped_and_nobody_asks_for_its_time_any_more(
    tmp_path: Path, *, by_device: bool
) -> None:
    attempt, machine = await ended(tmp_path, lambda attempt, _: attempt.force(), by_device=by_device)
    assert attempt.board.progress.phase is Phase.COMPLETED
    rounds = attempt.board.progress.rounds.recent
    assert any(each.throttle_percent for each in rounds) is not by_device
    assert any(each.device_throttle_percent for each in rounds) is by_device
    paused = machine.calls.index("pause for an attempt")
    assert not [call for call in machine.calls[paused:] if call.startswith("throttle")]


async def test_what_was_taken_is_asked_for_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_device: bool
) -> None:
    """The machine's process gives it back after a few seconds in which nobody did."""
    monkeypatch.setattr("source_agent.throttling._AGAIN_EVERY", 0.001)

    def until_asked_again(attempt: OutgoingAttempt, machine: BusyMachine) -> None:
        machine.enough = attempt.cancel

    _, machine = await ended(tmp_path, until_asked_again, by_device=by_device)
    assert machine.asked >= 3
