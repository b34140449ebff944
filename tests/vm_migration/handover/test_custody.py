"""A machine in the hands of one agent: writes in order, closing, and what proves a process gone."""

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from tests.fakes.fake_machine import MACHINE, Held, held
from vm_migration.errors import InternalError, Refused, Stale
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import InstanceGone, Process, SideView
from vm_migration.handover.journal import Journal
from vm_migration.handover.journal_errors import JournalMoved, JournalUncertain
from vm_migration.handover.journals import Journals
from vm_migration.handover.memory_disk import MemoryDisk
from vm_migration.handover.ownership import create, owe_run_state, retired
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.machine.run_directory import Instance, ProcessId, RunDirectory, identify
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.process.identity import boot_id


def custody_of(folder: Path, instance: str) -> Custody:
    record = create(MACHINE, instance=instance, was_running=True, specification="{}")
    hypervisor = SoftwareHypervisor(folder / "run")
    return Custody(Journal.create(folder, record), hypervisor.of(UUID(MACHINE)), hypervisor)


def instance(*, started: int = 0) -> Instance:
    own = identify(os.getpid())
    process = ProcessId(own.pid, own.started + started)
    return Instance(boot_id(), process, process, "token")


async def test_the_journalled_instance_is_looked_at_and_not_the_folder(tmp_path: Path) -> None:
    custody = custody_of(tmp_path, instance().name)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert custody.process() is Process.ALIVE
    await custody.close()


async def test_a_process_that_is_gone_is_proven_so(tmp_path: Path) -> None:
    gone = instance(started=1).name
    custody = custody_of(tmp_path, gone)
    assert await custody.answer_or_proof() == InstanceGone(gone)
    await custody.close()


async def test_without_a_journalled_instance_nothing_is_known(tmp_path: Path) -> None:
    custody = custody_of(tmp_path, "")
    assert custody.process() is Process.UNKNOWN
    await custody.close()


async def test_a_refused_change_writes_nothing_and_an_equal_one_neither(tmp_path: Path) -> None:
    custody = custody_of(tmp_path, instance().name)

    def refuse(_record: Record) -> Record:
        raise Refused("no", "Not now")

    with pytest.raises(Refused):
        await custody.write(refuse)
    before = custody.record
    assert await custody.write(lambda record: owe_run_state(record, running=True)) is before
    assert custody.record.sequence == before.sequence
    await custody.close()


async def test_a_write_under_way_ends_though_whoever_asked_for_it_is_cancelled(tmp_path: Path) -> None:
    custody = custody_of(tmp_path, instance().name)
    writing = asyncio.create_task(custody.write(lambda record: owe_run_state(record, running=False)))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await custody.write(lambda record: record)
    assert not custody.record.was_running
    await custody.close()


async def test_a_closed_custody_writes_nothing_more(tmp_path: Path) -> None:
    custody = custody_of(tmp_path, instance().name)
    await custody.close()
    await custody.close()
    with pytest.raises(Stale) as refusal:
        await custody.write(lambda record: owe_run_state(record, running=False))
    assert refusal.value.code == "custody-over"
    assert custody.record.was_running  # what it knew can still be shown


async def test_whoever_opens_the_journal_ends_the_custody_before(tmp_path: Path) -> None:
    older = custody_of(tmp_path, instance().name)
    newer = await Custody.open(Journals(tmp_path), SoftwareHypervisor(tmp_path / "run"), MACHINE)
    assert newer.record.controller == older.record.controller + 1
    with pytest.raises(JournalMoved):
        await older.write(lambda record: owe_run_state(record, running=False))
    await newer.write(lambda record: owe_run_state(record, running=False))
    await older.close()
    await newer.close()


@contextlib.contextmanager
def given_up_machine(folder: Path) -> Iterator[Held]:
    """Yield a machine whose journal says that nothing of it belongs here any more, and whose process still runs."""
    with held(
        folder, create(MACHINE, instance="", was_running=True, specification="{}"), gone_away, running=True
    ) as it:
        yield it


def gone_away(record: Record) -> Record:
    return retired(record, SideView("", State.TAKEN, highest_epoch=9))


async def test_what_the_journal_gave_up_is_ended_by_request_and_its_folder_removed(tmp_path: Path) -> None:
    with given_up_machine(tmp_path) as machine:
        await machine.custody.take_away(kill=False)
        assert machine.machine.calls == ["destroy"]
        assert not machine.directory.path.exists()


async def test_a_freeing_whose_asker_has_gone_and_let_go_comes_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose host was frozen took longer to end than the call that asked for it could wait."""
    asked, goes = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await goes.wait()

    with given_up_machine(tmp_path) as machine:
        monkeypatch.setattr(machine.machine, "destroy", slow)
        freeing = asyncio.create_task(machine.custody.take_away(kill=False))
        await asked.wait()
        freeing.cancel()
        await asyncio.wait({freeing})
        closing = asyncio.create_task(machine.custody.close())
        goes.set()
        await closing
        assert not machine.directory.path.exists()


async def test_nothing_is_ended_that_the_journal_has_not_given_up(tmp_path: Path) -> None:
    with held(tmp_path, create(MACHINE, instance="", was_running=True, specification="{}"), running=True) as machine:
        for kill in (False, True):
            with pytest.raises(InternalError):
                await machine.custody.take_away(kill=kill)
        assert machine.machine.calls == []
        assert machine.machine.process.poll() is None


@pytest.mark.parametrize("kill", [False, True])
async def test_an_agent_that_was_frozen_ends_nobody_elses_machine(tmp_path: Path, *, kill: bool) -> None:
    with given_up_machine(tmp_path) as machine:
        newer = await Custody.open(machine.journals, machine.hypervisor, MACHINE)
        machine.machine.fenced = not kill  # the process obeys the newer one, or was not attached yet
        with pytest.raises(Stale):
            await machine.custody.take_away(kill=kill)
        assert machine.machine.process.poll() is None
        assert machine.directory.path.exists()
        await newer.close()


async def test_another_instance_in_the_machines_folder_is_left_alone(tmp_path: Path) -> None:
    with given_up_machine(tmp_path) as machine:
        own = identify(os.getpid())
        RunDirectory(tmp_path / "run").of(UUID(MACHINE)).write_instance(Instance(boot_id(), own, own, "later"))
        await machine.custody.take_away(kill=True)
        assert machine.directory.path.exists()


async def test_what_follows_a_record_of_which_nobody_knows_is_made_of_it(tmp_path: Path) -> None:
    """A hand-over that came after a TAKEN whose flush had failed undid it: the machine's epochs went back."""
    disk = MemoryDisk()
    record = create(MACHINE, instance=instance().name, was_running=True, specification="{}")
    journal = Journal.create(tmp_path, record, disk=disk)
    hypervisor = SoftwareHypervisor(tmp_path / "run")
    custody = Custody(journal, hypervisor.of(UUID(MACHINE)), hypervisor)
    disk.failures[disk.steps + 2] = errno.EIO  # the write succeeds, its flush does not
    with pytest.raises(JournalUncertain):
        await custody.write(lambda last: msgspec.structs.replace(last, highest_epoch=7, owned_epoch=7))
    seen: list[int] = []

    def pause(last: Record) -> Record:
        seen.append(last.highest_epoch)
        return owe_run_state(last, running=False)

    after = await custody.write(pause)
    assert (after.highest_epoch, after.owned_epoch, after.was_running) == (7, 7, False)
    assert seen[-1] == 7
    await custody.close()
