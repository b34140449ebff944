"""The journal on a disk that loses power at every step, in every way that writes and names can survive it."""

import errno
from collections.abc import Callable

import pytest

from tests.vm_migration.handover.journal_life import FOLDER, MACHINE, OWNER, confirm, live
from vm_migration.handover import ownership
from vm_migration.handover.journal import COMPACT_ABOVE, Journal, machines, read_last
from vm_migration.handover.journal_errors import JournalUncertain
from vm_migration.handover.memory_disk import MemoryDisk, PowerLost
from vm_migration.handover.record import Record

SURVIVALS: tuple[Callable[[int], bool], ...] = (
    lambda _: False,
    lambda _: True,
    lambda number: number % 2 == 0,
    lambda number: number % 2 == 1,
    lambda number: number != 1,
    lambda number: number == 0,
    lambda number: number >= 2,
)


def _run_until_power_is_lost(step: int) -> tuple[MemoryDisk, list[Record], bool]:
    disk = MemoryDisk()
    disk.lose_power_at = step
    seen: list[Record] = []
    try:
        live(disk, seen)
    except PowerLost:
        return disk, seen, False
    return disk, seen, True


@pytest.mark.parametrize("keep", SURVIVALS)
@pytest.mark.parametrize("names_kept", [0, 1, 2, 3])
def test_power_lost_at_every_step_leaves_the_old_or_the_new_record(
    keep: Callable[[int], bool], names_kept: int
) -> None:
    whole: list[Record] = []
    live(MemoryDisk(), whole)
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
