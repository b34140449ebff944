"""Mode reboot by an agent, with real processes: the guest is suspended, left in files, and goes on in new ones."""

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from source_agent import restarting
from source_agent.agent import SourceAgent
from source_agent.obstacles import update_obstacles
from source_agent.surroundings import Surroundings
from source_agent.terms import update_terms
from source_agent.updating.attempt import UpdateAttempt
from tests.source_agent.journeys import no_hook
from tests.vmm.update.machine_processes import MIB, Controller
from tests.vmm.update.test_suspended_machine import in_a_file
from vm_migration.errors import Refused
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import AttemptKey
from vm_migration.handover.states import State
from vm_migration.handover.succession import went_over
from vm_migration.machine import software_succession, waiting_in_files
from vm_migration.machine.errors import LaunchFailed
from vm_migration.machine.run_directory import Instance, RunDirectory, lives
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vm_migration.machine.software_succession import SoftwareSuccession
from vmm.process.control import CONTROL_SOCKET
from vmm.process.identity import boot_id

NAME = "updated"
PATIENCE = 60.0


@asynccontextmanager
async def living(folder: Path) -> AsyncIterator[SourceAgent]:
    """An agent of a host of which everything lies in a folder."""
    agent = SourceAgent(
        host="host-a",
        journals=Journals(folder / "journal"),
        hypervisor=SoftwareHypervisor(folder / "run"),
        succession=SoftwareSuccession(folder / "run"),
        memory_budget=1 << 30,
        hash_bytes_per_s=1e9,
        surroundings=lambda _attempt, _machine, _epoch: Surroundings(None, no_hook, 1e9, boot_id()),
    )
    await agent.recover()
    try:
        yield agent
    finally:
        await agent.stop()


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """A host with one machine, whose RAM is in a file; nothing of it is left afterwards."""
    async with living(tmp_path) as agent:
        await agent.machines.create(in_a_file(tmp_path / "ram"))
    yield tmp_path
    hypervisor = SoftwareHypervisor(tmp_path / "run")
    for place in hypervisor.all():
        await hypervisor.take_away(place, None)


def processes(folder: Path) -> Instance:
    """Return what instance.json names."""
    (place,) = RunDirectory(folder / "run").all()
    found = place.instance()
    assert found is not None
    return found


async def codes(agent: SourceAgent) -> list[str]:
    """Return what keeps the machine from being updated."""
    found = await update_obstacles(agent.holdings, await agent.holdings.find(NAME), "reboot")
    return [each.code for each in found]


async def begun(agent: SourceAgent) -> UpdateAttempt:
    holding = await agent.holdings.find(NAME)
    key = AttemptKey(holding.record.machine, str(uuid.uuid4()), 0, 1)
    attempt = await agent.begin(key, "host-a", update_terms("reboot"))
    assert isinstance(attempt, UpdateAttempt)
    return attempt


async def ended(attempt: UpdateAttempt) -> None:
    async with asyncio.timeout(PATIENCE):
        while attempt.open:
            await attempt.board.next(1.0)


async def left_waiting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the machine released in its files, by an agent that ends before it is started anew."""

    async def refuses(*_: object) -> None:
        raise LaunchFailed("The host is about to restart")

    async with living(folder) as agent:
        await agent.machines.set_awake(NAME, awake=False)
        before = processes(folder)
        with monkeypatch.context() as patched:
            patched.setattr(software_succession, "wake", refuses)
            attempt = await begun(agent)
            async with asyncio.timeout(PATIENCE):
                while "about to restart" not in attempt.board.progress.reason:
                    await attempt.board.next(1.0)
            assert attempt.record.state is State.RELEASED
            assert not lives(before.vmm)
            await agent.stop()


async def test_a_suspended_machine_goes_on_in_new_processes_of_both_kinds(folder: Path) -> None:
    async with living(folder) as agent:
        assert await codes(agent) == ["not-suspended"]
        await agent.machines.set_awake(NAME, awake=False)
        await agent.machines.set_awake(NAME, awake=True)
        assert await codes(agent) == ["not-suspended"]
        await agent.machines.set_awake(NAME, awake=False)
        assert await codes(agent) == []
        before = processes(folder)
        await ended(attempt := await begun(agent))
        progress = attempt.board.progress
        assert (progress.outcome.value, progress.failure) == ("completed", None)
        assert went_over(attempt.record)
        assert progress.downtime is not None
        after = processes(folder)
        assert not {before.vmm, before.host} & {after.vmm, after.host}
        assert [lives(each) for each in (before.vmm, before.host, after.vmm, after.host)] == [False, False, True, True]
        assert not (folder / "ram.suspended").exists()
        (place,) = RunDirectory(folder / "run").all()
        record = attempt.record
        await agent.holdings.drop(record.machine)  # which commands the machine, and another one does from here on
        with Controller(place.path / CONTROL_SOCKET, record.owned_epoch, record.controller + 1) as guest:
            assert guest.works(20).guest.errors == 0
        assert (folder / "ram").stat().st_size == 64 * MIB


async def test_a_machine_that_waits_is_started_by_the_next_life_also_without_its_run_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_waiting(folder, monkeypatch)
    assert (folder / "ram.suspended").exists()
    shutil.rmtree(folder / "run")
    async with living(folder) as agent:
        for each in agent._attempts:
            assert isinstance(each, UpdateAttempt)
            await ended(each)
        holding = await agent.holdings.find(NAME)
        assert (holding.record.state, holding.record.run_confirmed) == (State.RECLAIMED, True)
        assert holding.description is not None
        assert (holding.description.run_state, holding.description.guest.errors) == ("running", 0)
        assert not (folder / "ram.suspended").exists()
        assert lives(processes(folder).vmm)


async def test_a_machine_whose_memory_did_not_outlive_the_restart_is_lost_and_not_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_waiting(folder, monkeypatch)
    shutil.rmtree(folder / "run")
    (folder / "ram").unlink()
    async with living(folder) as agent:
        for each in agent._attempts:
            assert isinstance(each, UpdateAttempt)
            await ended(each)
            assert each.record.state is State.LOST
    assert not (folder / "ram").exists()


async def test_a_machine_whose_file_system_is_gone_waits_until_an_operator_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_in_files, "kind_of_file_system", lambda _: "xfs")
    monkeypatch.setattr(restarting, "_PATIENCE", 0.1)
    await left_waiting(folder, monkeypatch)
    shutil.rmtree(folder / "run")
    for name in ("ram", "ram.suspended"):
        (folder / name).unlink()
    monkeypatch.setattr(waiting_in_files, "_identity", lambda _: "another")
    async with living(folder) as agent:
        (attempt,) = agent._attempts
        async with asyncio.timeout(PATIENCE):
            while "recover --machine" not in attempt.board.progress.reason:
                await attempt.board.next(1.0)
        assert attempt.record.state.value == "RELEASED"
        await agent.recovered(attempt.record.machine, "anna at noon")
        assert attempt.record.state is State.LOST


async def test_a_guest_that_stands_still_neither_sleeps_nor_wakes(folder: Path) -> None:
    async with living(folder) as agent:
        await agent.machines.set_running(NAME, running=False)
        with pytest.raises(Refused, match="is paused"):
            await agent.machines.set_awake(NAME, awake=False)
