"""Several controllers at one journal: whoever came later writes, everybody else is told, nobody waits for ever."""

import errno
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vm_migration.handover.journal_life import FOLDER, MACHINE, OWNER, confirm
from vm_migration.handover import ownership
from vm_migration.handover.journal import Journal, read_last
from vm_migration.handover.journal_errors import JournalBusy, JournalMoved, JournalUncertain
from vm_migration.handover.memory_disk import MemoryDisk
from vm_migration.handover.record import Record


def test_a_lock_that_is_kept_is_an_answer_and_not_a_wait() -> None:
    disk = MemoryDisk()
    journal = Journal.create(FOLDER, OWNER, disk=disk)
    keeper = disk.open(FOLDER / MACHINE)
    disk.lock(keeper)
    with pytest.raises(JournalBusy):
        journal.append(confirm(journal.last))
    with pytest.raises(JournalBusy):
        Journal.open(FOLDER, MACHINE, disk=disk)
    disk.unlock(keeper)
    journal.append(confirm(journal.last))


@settings(max_examples=150)
@given(
    st.lists(
        st.sampled_from(["open a", "open b", "append a", "append b", "fail", "die", "power", "half power"]),
        min_size=4,
        max_size=40,
    )
)
def test_no_two_controllers_ever_append_after_the_same_record(moves: list[str]) -> None:
    disk = MemoryDisk()
    Journal.create(FOLDER, OWNER, disk=disk).close()
    held: dict[str, Journal] = {}
    confirmed: dict[int, Record] = {}
    for move in moves:
        verb, _, who = move.partition(" ")
        if verb == "open":
            held[who] = _opened(disk, held.get(who), confirmed)
        elif verb == "append" and who in held:
            _appended(held, who, confirmed)
        elif verb == "fail":
            disk.failures[disk.steps + 2] = errno.EIO
        elif verb == "die":
            disk.end_processes()
            held.clear()
        elif move in {"power", "half power"}:
            held.clear()
            disk.restart(partial(_survives, half=move == "half power"))
        disk.failures = {step: number for step, number in disk.failures.items() if step > disk.steps}
        last = read_last(FOLDER, MACHINE, disk=disk)
        assert last.sequence >= max(confirmed, default=1)
        assert confirmed.get(last.sequence, last) == last


def _survives(number: int, *, half: bool) -> bool:
    return half and number % 2 == 1


def _opened(disk: MemoryDisk, before: Journal | None, confirmed: dict[int, Record]) -> Journal:
    if before is not None:
        before.close()
    while True:
        try:
            journal = Journal.open(FOLDER, MACHINE, disk=disk)
        except JournalUncertain:
            continue
        _note(journal.last, confirmed)
        return journal


def _appended(held: dict[str, Journal], who: str, confirmed: dict[int, Record]) -> None:
    journal = held[who]
    latest = max(confirmed)
    try:
        written = journal.append(ownership.owe_run_state(journal.last, running=not journal.last.was_running))
    except (JournalMoved, JournalUncertain):
        return
    assert written.controller == confirmed[latest].controller
    _note(written, confirmed)


def _note(written: Record, confirmed: dict[int, Record]) -> None:
    assert written.sequence not in confirmed
    confirmed[written.sequence] = written


def test_a_file_put_in_the_journals_place_stops_whoever_held_the_old_one(tmp_path: Path) -> None:
    with Journal.create(tmp_path, OWNER) as journal:
        copy = tmp_path / ".copy"
        copy.write_bytes((tmp_path / MACHINE).read_bytes())
        copy.rename(tmp_path / MACHINE)
        with pytest.raises(JournalMoved):
            journal.append(confirm(journal.last))


def test_a_journal_replaced_while_somebody_waits_for_its_lock_is_opened_anew() -> None:
    class Replaced(MemoryDisk):
        """The file is compacted between its opening and its locking."""

        done = False

        def lock(self, file: int) -> None:
            if not self.done and self.names(FOLDER) == [MACHINE]:
                self.done = True
                fresh = self.create(FOLDER / ".copy")
                self.write(fresh, 0, self.read(file, 0))
                self.rename(FOLDER / ".copy", FOLDER / MACHINE)
                self.close(fresh)
            super().lock(file)

    disk = Replaced()
    Journal.create(FOLDER, OWNER, disk=disk).close()
    with Journal.open(FOLDER, MACHINE, disk=disk) as journal:
        assert disk.done
        journal.append(confirm(journal.last))
    assert read_last(FOLDER, MACHINE, disk=disk).run_confirmed
