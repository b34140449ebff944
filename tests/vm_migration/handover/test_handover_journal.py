"""The journal on a real disk and on one in memory: what was written is read back, by its owner alone."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm_migration.handover.journal_life import FOLDER, LIFE, MACHINE, OWNER, begin, confirm
from vm_migration.errors import InvalidInput
from vm_migration.handover import ownership
from vm_migration.handover.disk import Disk, RealDisk
from vm_migration.handover.journal import COMPACT_ABOVE, Journal, machines, read_last
from vm_migration.handover.journal_errors import JournalExists, JournalMoved
from vm_migration.handover.memory_disk import MemoryDisk
from vm_migration.handover.states import State


@pytest.fixture(params=["memory", "real"])
def disk_and_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Disk, Path]]:
    if request.param == "memory":
        yield MemoryDisk(), FOLDER
    else:
        yield RealDisk(), tmp_path / "journal"


def test_what_was_appended_is_read_back_and_restated(disk_and_folder: tuple[Disk, Path]) -> None:
    disk, folder = disk_and_folder
    with Journal.create(folder, OWNER, disk=disk) as journal:
        for change in LIFE:
            written = journal.append(change(journal.last))
            assert journal.last == written
        last = journal.last
    with Journal.open(folder, MACHINE, disk=disk) as opened:
        assert opened.last.opened
        assert opened.controller == last.controller + 1
        assert opened.last.sequence == last.sequence + 1
        assert opened.last.state is State.ABORTED
        assert opened.last.specification == OWNER.specification
        assert read_last(folder, MACHINE, disk=disk) == opened.last
    assert machines(folder, disk=disk) == (MACHINE,)


def test_a_second_journal_of_a_machine_is_refused(disk_and_folder: tuple[Disk, Path]) -> None:
    disk, folder = disk_and_folder
    Journal.create(folder, OWNER, disk=disk).close()
    with pytest.raises(JournalExists):
        Journal.create(folder, OWNER, disk=disk)
    assert machines(folder, disk=disk) == (MACHINE,)


def test_a_newer_controller_cuts_the_older_off(disk_and_folder: tuple[Disk, Path]) -> None:
    disk, folder = disk_and_folder
    first = Journal.create(folder, OWNER, disk=disk)
    second = Journal.open(folder, MACHINE, disk=disk)
    with pytest.raises(JournalMoved):
        first.append(confirm(first.last))
    second.append(confirm(second.last))
    first.close()
    second.close()


def test_compaction_keeps_the_last_record_and_cuts_off_who_held_the_old_file(
    disk_and_folder: tuple[Disk, Path],
) -> None:
    disk, folder = disk_and_folder
    with Journal.create(folder, OWNER, disk=disk) as journal:
        stale = Journal.open(folder, MACHINE, disk=disk)
        with Journal.open(folder, MACHINE, disk=disk) as writer:
            sizes = []
            for number in range(260):
                record = ownership.owe_run_state(writer.last, running=number % 2 == 1)
                writer.append(record)
                sizes.append(writer._last_start + len(writer._last_line))
            assert max(sizes) <= COMPACT_ABOVE + 4096
            assert sizes[-1] < sizes[-2] or min(sizes[1:]) < sizes[0]
            last = writer.last
        with pytest.raises(JournalMoved):
            stale.append(confirm(stale.last))
        stale.close()
        with pytest.raises(JournalMoved):
            journal.append(confirm(journal.last))
    with Journal.open(folder, MACHINE, disk=disk) as opened:
        assert opened.last.sequence == last.sequence + 1
        assert opened.last.highest_epoch == last.highest_epoch


@pytest.mark.parametrize("name", ["../etc/passwd", "", MACHINE.upper(), "guest"])
def test_only_a_machines_uuid_names_a_journal(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        Journal.open(tmp_path, name)


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    Journal.create(tmp_path / "journal", OWNER).close()
    assert (tmp_path / "journal" / MACHINE).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700


def test_the_documented_command_shows_the_last_record_and_no_secret(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "protocol" / "handover.md").read_text()
    command = next(each.strip() for each in page.splitlines() if each.startswith("    tr -d"))
    with Journal.create(tmp_path, OWNER) as journal:
        for change in (confirm, begin):
            journal.append(change(journal.last))
    shown = subprocess.run(
        ["sh", "-c", command.replace("FILE", str(tmp_path / MACHINE))], check=True, capture_output=True, text=True
    ).stdout
    assert '"state": "OUTGOING"' in shown
    assert (b"s" * 32).hex() not in shown
