"""What a damaged journal answers: the record before, where only its tail is torn; else that it is unreadable."""

from pathlib import Path

import pytest

from tests.vm_migration.handover.journal_life import MACHINE, OWNER, confirm
from vm_migration.handover import ownership
from vm_migration.handover.journal import Journal, read_last
from vm_migration.handover.journal_errors import JournalUnreadable
from vm_migration.handover.journal_format import line


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"not a journal\n", line(b'{"machine":"\xff"}')])
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
