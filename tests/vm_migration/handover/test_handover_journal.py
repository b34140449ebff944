"""The journal on a real disk and on one that loses power, tears writes, fails flushes and runs full at every step."""

import errno
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.errors import InvalidInput
from vm_migration.handover import departure, ownership
from vm_migration.handover.disk import Disk, RealDisk
from vm_migration.handover.evidence import ProcessAnswer
from vm_migration.handover.journal import COMPACT_ABOVE, Journal, machines, read_last
from vm_migration.handover.journal_errors import (
    JournalBusy,
    JournalExists,
    JournalMoved,
    JournalUncertain,
    JournalUnreadable,
    JournalUnwritable,
)
from vm_migration.handover.memory_disk import MemoryDisk, PowerLost
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.states import IllegalTransition, State

MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
ATTEMPT = "5f0e8d0a-1111-4222-8333-444455556666"
FOLDER = Path("/var/lib/viaduct/journal")
OWNER = ownership.create(MACHINE, instance="i1", was_running=True, specification='{"memory":"' + "1" * 900 + '"}')


def answer(record: Record, *, running: bool) -> ProcessAnswer:
    return ProcessAnswer(record.instance, record.controller, running, record.pause)


def confirm(record: Record) -> Record:
    return ownership.run_confirmed(record, answer(record, running=record.was_running))


def begin(record: Record) -> Record:
    return departure.begin(
        record, AttemptKey(MACHINE, ATTEMPT, 0, 1), destination="b", was_running=True, secret=b"s" * 32, policy="{}"
    )


def stop(record: Record) -> Record:
    return departure.stopped(record, pause=record.pause + 1, bound_ms=1000)


def abort(record: Record) -> Record:
    return departure.aborted(record, reason="asked", process=answer(record, running=False))


LIFE: tuple[Callable[[Record], Record], ...] = (confirm, begin, stop, abort)


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


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"not a journal\n"])
def test_a_missing_empty_or_strange_file_is_unreadable_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(JournalUnreadable):
        Journal.open(tmp_path, MACHINE)
    (tmp_path / MACHINE).write_bytes(content)
    with pytest.raises(JournalUnreadable):
        Journal.open(tmp_path, MACHINE)
    assert (tmp_path / MACHINE).read_bytes() == content


def test_another_machines_journal_under_this_name_is_unreadable(tmp_path: Path) -> None:
    Journal.create(tmp_path, OWNER).close()
    other = MACHINE[:-1] + "9"
    (tmp_path / MACHINE).rename(tmp_path / other)
    with pytest.raises(JournalUnreadable):
        Journal.open(tmp_path, other)


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


def _filled(tmp_path: Path) -> tuple[Path, bytes, int]:
    """A journal of three records without reserved space: its path, its bytes, where the last line begins."""
    with Journal.create(tmp_path, OWNER) as journal:
        journal.append(confirm(journal.last))
        journal.append(ownership.owe_run_state(journal.last, running=False))
        return tmp_path / MACHINE, (tmp_path / MACHINE).read_bytes(), journal._last_start


@pytest.mark.parametrize("padding", [0, 700])
def test_a_tail_torn_at_any_byte_falls_back_to_the_record_before(tmp_path: Path, padding: int) -> None:
    path, whole, last_start = _filled(tmp_path)
    for cut in range(last_start, len(whole)):
        path.write_bytes(whole[:cut] + bytes(padding))
        assert read_last(tmp_path, MACHINE).run_confirmed
        if cut % 97 == 0:
            with Journal.open(tmp_path, MACHINE) as journal:
                assert journal.last.run_confirmed
                journal.append(ownership.owe_run_state(journal.last, running=False))
            assert not read_last(tmp_path, MACHINE).run_confirmed


def test_a_rotten_byte_anywhere_makes_the_journal_unreadable(tmp_path: Path) -> None:
    path, whole, _ = _filled(tmp_path)
    for at in range(0, len(whole) - 1, 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x01]) + whole[at + 1 :])
        with pytest.raises(JournalUnreadable):
            read_last(tmp_path, MACHINE)


def test_a_sector_missing_before_the_tail_makes_the_journal_unreadable(tmp_path: Path) -> None:
    path, whole, last_start = _filled(tmp_path)
    path.write_bytes(whole[: last_start - 300] + bytes(100) + whole[last_start - 200 :])
    with pytest.raises(JournalUnreadable):
        read_last(tmp_path, MACHINE)


SURVIVALS: tuple[Callable[[int], bool], ...] = (
    lambda _: False,
    lambda _: True,
    lambda number: number % 2 == 0,
    lambda number: number % 2 == 1,
    lambda number: number != 1,
    lambda number: number == 0,
    lambda number: number >= 2,
)


def _live(disk: MemoryDisk, seen: list[Record]) -> None:
    """Create, live through an attempt, open twice in between; note each record once it is confirmed."""
    journal = Journal.create(FOLDER, OWNER, disk=disk)
    seen.append(journal.last)
    for number, change in enumerate(LIFE):
        if number % 2 == 1:
            journal.close()
            journal = Journal.open(FOLDER, MACHINE, disk=disk)
            seen.append(journal.last)
        seen.append(journal.append(change(journal.last)))


def _run_until_power_is_lost(step: int) -> tuple[MemoryDisk, list[Record], bool]:
    disk = MemoryDisk()
    disk.lose_power_at = step
    seen: list[Record] = []
    try:
        _live(disk, seen)
    except PowerLost:
        return disk, seen, False
    return disk, seen, True


@pytest.mark.parametrize("keep", SURVIVALS)
@pytest.mark.parametrize("names_kept", [0, 1, 2, 3])
def test_power_lost_at_every_step_leaves_the_old_or_the_new_record(
    keep: Callable[[int], bool], names_kept: int
) -> None:
    whole: list[Record] = []
    _live(MemoryDisk(), whole)
    step, finished = 0, False
    while not finished:
        step += 1
        disk, seen, finished = _run_until_power_is_lost(step)
        disk.restart(keep, names_kept=names_kept)
        if not seen and not machines(FOLDER, disk=disk):
            continue
        allowed = whole[max(len(seen) - 1, 0) : len(seen) + 1]
        found = read_last(FOLDER, MACHINE, disk=disk)
        assert found in allowed
        with Journal.open(FOLDER, MACHINE, disk=disk) as journal:
            assert journal.last.sequence == found.sequence + 1
            assert journal.last.state is found.state
        disk.restart(lambda _: False)
        assert read_last(FOLDER, MACHINE, disk=disk).controller == found.controller + 1
    assert step > 20


@pytest.mark.parametrize("keep", SURVIVALS)
def test_power_lost_while_a_recovering_controller_opens(keep: Callable[[int], bool]) -> None:
    for written in (False, True):
        step, finished = 0, False
        while not finished:
            disk = MemoryDisk()
            journal = Journal.create(FOLDER, OWNER, disk=disk)
            # The first writer dies between its write and its flush (written), or in the middle of its write.
            disk.failures[disk.steps + (2 if written else 1)] = errno.EIO
            with pytest.raises(JournalUncertain):
                journal.append(confirm(journal.last))
            disk.end_processes()
            step += 1
            disk.lose_power_at = disk.steps + step
            finished = True
            opened: Record | None = None
            try:
                opened = Journal.open(FOLDER, MACHINE, disk=disk).last
            except PowerLost:
                finished = False
            disk.restart(keep)
            found = read_last(FOLDER, MACHINE, disk=disk)
            assert found.sequence in {1, 2, 3}
            assert opened is None or found == opened


def test_every_step_that_fails_is_either_refused_or_uncertain_and_never_lies() -> None:
    steps = MemoryDisk()
    _live(steps, [])
    for step in range(1, steps.steps + 1):
        for number in (errno.EIO, errno.ENOSPC):
            disk = MemoryDisk()
            disk.failures[step] = number
            seen: list[Record] = []
            try:
                _live(disk, seen)
            except JournalUncertain:
                uncertain = 1
            except JournalUnwritable:
                uncertain = 0
            else:
                uncertain = 0
            disk.restart(lambda _: True, names_kept=99)
            if not seen:
                continue
            found = read_last(FOLDER, MACHINE, disk=disk)
            assert seen[-1].sequence <= found.sequence <= seen[-1].sequence + uncertain


def _released(record: Record) -> Record:
    return Record(**{**{name: getattr(record, name) for name in record.__struct_fields__}, "state": State.RELEASED})


@pytest.mark.parametrize("after", [1, 2])
def test_after_an_uncertain_released_only_a_durable_aborted_goes_on(after: int) -> None:
    disk = MemoryDisk()
    journal = Journal.create(FOLDER, OWNER, disk=disk)
    for change in (confirm, begin, stop):
        journal.append(change(journal.last))
    disk.failures[disk.steps + 1 + after] = errno.EIO
    released = _released(journal.last)
    with pytest.raises(JournalUncertain):
        journal.append(released)
    assert journal.last.state is State.STOPPED
    assert journal.uncertain is not None
    assert journal.uncertain.state is State.RELEASED
    with pytest.raises(IllegalTransition):
        journal.append(released)
    journal.append(abort(journal.last))
    assert journal.uncertain is None
    disk.restart(lambda _: False)
    assert read_last(FOLDER, MACHINE, disk=disk).state is State.ABORTED


def test_a_second_failure_after_an_uncertain_released_may_be_tried_again() -> None:
    disk = MemoryDisk()
    journal = Journal.create(FOLDER, OWNER, disk=disk)
    for change in (confirm, begin, stop):
        journal.append(change(journal.last))
    closing = abort(journal.last)
    disk.failures[disk.steps + 3] = errno.EIO
    with pytest.raises(JournalUncertain):
        journal.append(_released(journal.last))
    disk.failures[disk.steps + 2] = errno.EIO
    with pytest.raises(JournalUncertain):
        journal.append(closing)
    journal.append(closing)
    disk.restart(lambda _: False)
    assert read_last(FOLDER, MACHINE, disk=disk).state is State.ABORTED


def test_an_attempt_that_began_can_be_closed_on_a_full_disk() -> None:
    disk = MemoryDisk()
    journal = Journal.create(FOLDER, OWNER, disk=disk)
    journal.append(confirm(journal.last))
    journal.append(begin(journal.last))
    disk.capacity = 0
    journal.append(stop(journal.last))
    journal.close()
    journal = Journal.open(FOLDER, MACHINE, disk=disk)
    journal.append(abort(journal.last))
    disk.restart(lambda _: False)
    assert read_last(FOLDER, MACHINE, disk=disk).state is State.ABORTED


def test_an_attempt_is_refused_when_its_end_has_no_space() -> None:
    disk = MemoryDisk()
    journal = Journal.create(FOLDER, OWNER, disk=disk)
    journal.append(confirm(journal.last))
    disk.capacity = sum(content.allocated for content in disk._names.values()) + 5000
    with pytest.raises(JournalUnwritable):
        journal.append(begin(journal.last))
    assert journal.last.state is State.OWNER
    assert read_last(FOLDER, MACHINE, disk=disk).state is State.OWNER


def test_power_lost_at_every_step_of_a_compaction_loses_nothing() -> None:
    def grow(disk: MemoryDisk, seen: list[Record], lose_at: int | None) -> None:
        journal = Journal.create(FOLDER, OWNER, disk=disk)
        seen.append(journal.last)
        while journal._last_start < COMPACT_ABOVE - 3 * len(journal._last_line):
            seen.append(journal.append(ownership.owe_run_state(journal.last, running=not journal.last.was_running)))
        disk.lose_power_at = lose_at and disk.steps + lose_at
        for _ in range(4):
            written = journal.append(ownership.owe_run_state(journal.last, running=not journal.last.was_running))
            seen.append(written)

    for lose_at in range(1, 18):
        for names_kept in range(4):
            disk = MemoryDisk()
            seen: list[Record] = []
            lost = False
            try:
                grow(disk, seen, lose_at)
            except PowerLost:
                lost = True
            disk.restart(lambda number: number % 2 == 0, names_kept=names_kept)
            found = read_last(FOLDER, MACHINE, disk=disk)
            assert seen[-1].sequence <= found.sequence <= seen[-1].sequence + lost


@settings(max_examples=150, deadline=None)
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
