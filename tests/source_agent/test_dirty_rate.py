"""How fast a machine dirties its memory, measured by its source agent: what is begun is ended, whatever happens."""

import asyncio
from pathlib import Path

import pytest

from source_agent.dirty_rate import measure
from source_agent.holdings import Holdings
from source_agent.machines import Machines
from tests.fakes.fake_machine import MACHINE, FakeMachine, Held
from tests.fakes.streaming_machine import StreamingMachine
from tests.source_agent.departures import leaving
from vm_migration.errors import InvalidInput, Refused
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineGone, MachineRefused
from vm_migration.machine.port import Harvest
from vm_migration.machine.windows import LONGEST_WINDOW_MS, SHORTEST_WINDOW_MS
from vmm.process.control import WhyTracked
from vmm.process.sampled_writes import WritesMeasured

MEASURED = ["start tracking for dirty-rate", "harvest", "stop tracking"]


def machines_of(held: Held) -> Machines:
    holdings = Holdings(held.journals, held.hypervisor)
    holdings.adopt(held.custody)
    return Machines("host-a", holdings, 1 << 30)


async def test_writes_are_logged_for_the_window_and_no_longer(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OWNER) as held:
        holding, rate = await machines_of(held).dirty_rate("fake", SHORTEST_WINDOW_MS)
        assert held.machine.calls == MEASURED
        assert (holding.record.machine, rate.exact, rate.sampled, rate.failure) == (MACHINE, True, False, "")
        assert rate.window_ms >= SHORTEST_WINDOW_MS


async def test_tracking_ends_when_the_harvest_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_self: FakeMachine) -> Harvest:
        raise MachineGone("harvest was not answered")

    monkeypatch.setattr(FakeMachine, "harvest", fails)
    with leaving(tmp_path, State.OWNER) as held:
        with pytest.raises(MachineGone, match="harvest was not answered"):
            await measure(held.machine, SHORTEST_WINDOW_MS)
        assert held.machine.calls == ["start tracking for dirty-rate", "stop tracking"]


async def test_tracking_ends_when_whoever_asked_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = asyncio.Event()
    starts = FakeMachine.start_tracking

    async def start_tracking(self: FakeMachine, reason: WhyTracked = "migration") -> None:
        await starts(self, reason)
        started.set()

    monkeypatch.setattr(FakeMachine, "start_tracking", start_tracking)
    with leaving(tmp_path, State.OWNER) as held:
        machines = machines_of(held)
        asking = asyncio.create_task(machines.dirty_rate("fake", LONGEST_WINDOW_MS))
        await started.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert held.machine.calls == ["start tracking for dirty-rate", "stop tracking"]
        await machines.dirty_rate("fake", SHORTEST_WINDOW_MS)  # and nobody holds the machine


async def test_a_start_that_nobody_answered_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = FakeMachine.start_tracking

    async def late(self: FakeMachine, reason: WhyTracked = "migration") -> None:
        await starts(self, reason)
        raise MachineGone("start tracking was not answered")

    monkeypatch.setattr(FakeMachine, "start_tracking", late)
    with leaving(tmp_path, State.OWNER) as held:
        with pytest.raises(MachineGone, match="start tracking"):
            await measure(held.machine, SHORTEST_WINDOW_MS)
        assert held.machine.calls[-1] == "stop tracking"


@pytest.mark.parametrize("window_ms", [0, SHORTEST_WINDOW_MS - 1, LONGEST_WINDOW_MS + 1, (1 << 32) - 1])
async def test_a_window_is_bounded(tmp_path: Path, window_ms: int) -> None:
    with leaving(tmp_path, State.OWNER) as held:
        with pytest.raises(InvalidInput, match=f"Window of {window_ms} ms") as refused:
            await machines_of(held).dirty_rate("fake", window_ms)
        assert (refused.value.code, held.machine.calls) == ("invalid-window", [])


@pytest.mark.parametrize("state", [State.OUTGOING, State.STOPPED])
async def test_the_bits_of_an_open_attempt_are_not_taken(tmp_path: Path, state: State) -> None:
    with leaving(tmp_path, state) as held:
        with pytest.raises(Refused) as refused:
            await machines_of(held).dirty_rate(MACHINE, SHORTEST_WINDOW_MS)
        assert (refused.value.code, held.machine.calls) == ("attempt-open", [])


def streaming(held: Held, *written: WritesMeasured) -> StreamingMachine:
    return StreamingMachine(held.machine.process, written=list(written))


async def test_a_machine_with_a_stream_of_its_own_is_waited_for_until_it_knows(tmp_path: Path) -> None:
    lasts, ended = WritesMeasured(ended=False), WritesMeasured(ended=True, window_ms=1000, bytes_per_s=40 << 20)
    with leaving(tmp_path, State.OWNER) as held:
        machine = streaming(held, lasts, lasts, ended)
        rate = await measure(machine, SHORTEST_WINDOW_MS)
        assert machine.calls == [f"measure writes for {SHORTEST_WINDOW_MS}", "writes", "writes", "writes"]
        assert (rate.window_ms, rate.pages, rate.sampled, rate.exact) == (1000, 10240, True, False)
        assert (rate.cpu_pages, rate.dma_pages) == (0, 0), "nobody knows who wrote them"


async def test_one_that_never_knows_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("source_agent.dirty_rate._MOST_BESIDE", 0.1)
    with leaving(tmp_path, State.OWNER) as held, pytest.raises(MachineRefused, match="did not find out in"):
        await measure(streaming(held, WritesMeasured(ended=False)), SHORTEST_WINDOW_MS)
