"""The point of no return and what follows: nothing leaves before RELEASED, and nothing is freed before ACTIVE."""

import asyncio
from pathlib import Path

import pytest

from source_agent.handing_over import Handed, Waiting, active_at, fence_off, hand_over, release, retire, tell_retired
from tests.fakes.fake_destination import FakeDestination, served
from tests.fakes.fake_machine import MACHINE
from tests.source_agent.departures import KEY, SECRET, A, leaving
from vm_migration.errors import InternalError, Refused, Stale, Unreachable, Unresolved
from vm_migration.handover.evidence import SideView
from vm_migration.handover.journal import read_last
from vm_migration.handover.states import IllegalTransition, State

SILENT = Unreachable("silent", "Not now")


def waiting(told: list[str], there: SideView | None = None) -> Waiting:
    async def unclear() -> SideView | None:
        return there

    return Waiting(told.append, asyncio.sleep, unclear)


async def test_released_is_durable_and_then_the_process_is_fenced(tmp_path: Path) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        await release(machine.custody, A, 1, await machine.custody.answer_or_proof())
        assert read_last(tmp_path / "journal", MACHINE).state is State.RELEASED
        assert machine.machine.calls == []
        await fence_off(machine.custody)
        assert (machine.machine.calls, machine.machine.released) == (["release 2"], 2)


async def test_the_secret_waits_for_a_process_that_is_silent_and_not_for_one_that_is_gone(tmp_path: Path) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        await release(machine.custody, A, 1, await machine.custody.answer_or_proof())
        machine.machine.silent = 1
        with pytest.raises(Unreachable) as refusal:
            await fence_off(machine.custody)
        assert refusal.value.code == "process-silent"
        machine.machine.end()
        await fence_off(machine.custody)


async def test_a_machine_that_runs_is_not_released(tmp_path: Path) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        machine.machine.running = True
        with pytest.raises(Refused):
            await release(machine.custody, A, 1, await machine.custody.answer_or_proof())
        assert (machine.custody.record.state, machine.machine.calls) == (State.STOPPED, [])


async def test_a_machine_at_another_stop_is_not_released(tmp_path: Path) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        machine.machine.pause_number = 2
        with pytest.raises(Refused):
            await release(machine.custody, A, 1, await machine.custody.answer_or_proof())
        with pytest.raises(Refused):
            await release(machine.custody, A, 2, await machine.custody.answer_or_proof())
        assert machine.custody.record.state is State.STOPPED


async def test_a_machine_that_another_controller_commands_is_not_released(tmp_path: Path) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        machine.machine.controller = 9
        with pytest.raises(Refused):
            await release(machine.custody, A, 1, await machine.custody.answer_or_proof())
        assert machine.custody.record.state is State.STOPPED


async def test_a_silent_process_is_not_released_and_one_that_is_gone_is(tmp_path: Path) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        machine.machine.silent = 1
        with pytest.raises(Unreachable):
            await release(machine.custody, A, 1, await machine.custody.answer_or_proof())
        machine.machine.end()
        await release(machine.custody, A, 1, await machine.custody.answer_or_proof())
        assert machine.custody.record.state is State.RELEASED


async def test_the_secret_is_given_until_the_destination_is_active(tmp_path: Path) -> None:
    async with served(FakeDestination(handoffs=[SILENT, "ACTIVATING", "ACTIVE"])) as destination:
        told: list[str] = []
        async with destination.link(A) as link:
            handed = await hand_over(link, KEY, 1, SECRET, waiting(told))
    assert isinstance(handed, Handed)
    assert (handed.boot_id, handed.activate_ns) == ("elsewhere", 2_000_000)
    assert destination.secrets == [SECRET] * 3
    assert len(told) == 2


async def test_a_destination_that_is_lost_ends_the_hand_over(tmp_path: Path) -> None:
    async with served(FakeDestination(handoffs=["LOST"])) as destination, destination.link(A) as link:
        handed = await hand_over(link, KEY, 1, SECRET, waiting([]))
        assert isinstance(handed, SideView)
        assert handed.sight is State.LOST


async def test_the_image_is_freed_once_retired_is_durable_also_when_asked_twice(tmp_path: Path) -> None:
    with leaving(tmp_path, State.RELEASED) as machine:
        assert machine.directory.path.exists()
        await retire(machine.custody, active_at(KEY))
        assert machine.machine.calls == ["destroy"]
        assert not machine.directory.path.exists()
        await retire(machine.custody, active_at(KEY))
        assert read_last(tmp_path / "journal", MACHINE).state is State.RETIRED


async def test_nothing_is_freed_before_the_release(tmp_path: Path) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        with pytest.raises((IllegalTransition, Refused)):
            await retire(machine.custody, active_at(KEY))
        assert machine.machine.calls == []
        assert machine.directory.path.exists()


async def test_the_new_owner_is_told_until_it_has_heard() -> None:
    async with served(FakeDestination(notes=[SILENT, SILENT, "ACTIVE"])) as destination, destination.link(A) as link:
        await tell_retired(link, KEY)
    assert destination.retired == 3


async def test_a_new_owner_whose_disk_fails_for_a_moment_is_told_again() -> None:
    """Else it would never know that its former source has retired, and begin no attempt any more."""
    uncertain = Unresolved("journal-uncertain", "Whether OPENED stands is unknown")
    moved = Stale("journal-moved", "Another controller writes the journal")
    fault = InternalError("internal", "The agent failed in this call")
    notes: list[str | Exception] = [uncertain, moved, fault, "ACTIVE"]
    async with served(FakeDestination(notes=notes)) as destination, destination.link(A) as link:
        await tell_retired(link, KEY)
    assert destination.retired == 4
