"""A machine in the hands of one agent: writes in order, closing, and what proves a process gone."""

import asyncio
import os
import shutil
from pathlib import Path
from uuid import UUID

import pytest

from vm_migration.errors import Refused, Stale
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import InstanceGone, Process
from vm_migration.handover.journal import Journal
from vm_migration.handover.journal_errors import JournalMoved
from vm_migration.handover.journals import Journals
from vm_migration.handover.ownership import create, owe_run_state
from vm_migration.handover.record import Record
from vm_migration.machine.run_directory import Instance, ProcessId, identify
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.process.description import boot_id

MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"


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
