"""The journal on a disk that fails a step or runs full: refused or uncertain, and never a lie."""

import errno

import pytest

from tests.vm_migration.handover.journal_life import FOLDER, MACHINE, OWNER, abort, begin, confirm, live, stop
from vm_migration.handover.journal import Journal, read_last
from vm_migration.handover.journal_errors import JournalUncertain, JournalUnwritable
from vm_migration.handover.memory_disk import MemoryDisk
from vm_migration.handover.record import Record
from vm_migration.handover.states import IllegalTransition, State


def test_every_step_that_fails_is_either_refused_or_uncertain_and_never_lies() -> None:
    steps = MemoryDisk()
    live(steps, [])
    for step in range(1, steps.steps + 1):
        for number in (errno.EIO, errno.ENOSPC):
            disk = MemoryDisk()
            disk.failures[step] = number
            seen: list[Record] = []
            try:
                live(disk, seen)
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


def test_a_record_that_was_read_as_durable_survives_and_its_writer_keeps_the_journal() -> None:
    disk = MemoryDisk()
    journal = Journal.create(FOLDER, OWNER, disk=disk)
    journal.append(confirm(journal.last))
    disk.failures[disk.steps + 3] = errno.EIO  # its space, its bytes, its flush
    with pytest.raises(JournalUncertain):
        journal.append(begin(journal.last))
    assert read_last(FOLDER, MACHINE, disk=disk).state is State.OUTGOING
    disk.failures[disk.steps + 2] = errno.EIO
    with pytest.raises(JournalUncertain):
        read_last(FOLDER, MACHINE, disk=disk, durable=True)
    seen = read_last(FOLDER, MACHINE, disk=disk, durable=True)
    assert (seen.state, seen.controller) == (State.OUTGOING, journal.controller)
    journal.append(stop(seen))
    assert journal.last.sequence == seen.sequence + 1
    disk.restart(lambda _: False)
    assert read_last(FOLDER, MACHINE, disk=disk).state is State.STOPPED
