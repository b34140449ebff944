"""The journal of one machine at one host: an append-only file, written by compare-and-append.

The promise: a record that `append` or `create` returned survives a loss of power, and no two controllers ever append
after the same record. `open` appends OPENED, a restatement under the next controller number, and flushes it before
anybody acts on what was read; from then on an earlier holder's append fails with JournalMoved. A crash at any step
leaves either the old last record or the new one. journal_format says what the bytes are and what counts as torn.

The file keeps space for closing records from the moment an attempt opens, so that ABORTED can be written on a full disk
(copy-on-write file systems cannot promise that). It lies on a disk that survives a loss of power. Calls block for a
flush, some milliseconds; a Journal serves one caller at a time.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from vm_migration.errors import InvalidInput
from vm_migration.handover.disk import Disk, RealDisk
from vm_migration.handover.journal_errors import (
    JournalBusy,
    JournalExists,
    JournalMoved,
    JournalUncertain,
    JournalUnreadable,
    JournalUnwritable,
)
from vm_migration.handover.journal_format import CorruptJournal, Scan, line, scan
from vm_migration.handover.record import Record, decode, encode
from vm_migration.handover.states import IllegalTransition, State, check_transition, predecessors

COMPACT_ABOVE = 256 * 1024
"""A file longer than this, in bytes, is rewritten as its last record alone once no attempt is open."""
_RESERVED_LINES = 8
_LINE_GROWTH = 4096
_COMPACTIONS_MET = 8
_REAL = RealDisk()


class Journal:
    """One controller's hold on a machine's journal; `last` is the durable truth as this controller knows it."""

    def __init__(self, disk: Disk, path: Path, file: int, last: Record, last_start: int) -> None:
        self._disk = disk
        self._path = path
        self._file = file
        self._last = last
        self._last_start = last_start
        self._last_line = line(encode(last))
        self._uncertain: Record | None = None
        self._names_pending = False

    @property
    def last(self) -> Record:
        """The last record that is known to be durable; to be acted on only while `uncertain` is None."""
        return self._last

    @property
    def uncertain(self) -> Record | None:
        """The record whose append failed, and which may stand in the file; cleared by the next append that succeeds."""
        return self._uncertain

    @property
    def controller(self) -> int:
        """This controller's number; the machine process is attached with it."""
        return self._last.controller

    @classmethod
    def create(cls, folder: Path, first: Record, *, disk: Disk = _REAL) -> Self:
        """Make the journal of a machine new to this host, as controller 1.

        Raises JournalExists or JournalUnwritable with nothing written, and JournalUncertain when the new name may not
        be durable.
        """
        check_transition(None, first.state)
        path = _path(folder, first.machine)
        record = msgspec.structs.replace(first, sequence=1, controller=1, opened=False)
        fresh = folder / f".{first.machine}.new"
        linked = False
        try:
            with _locked_folder(disk, folder, first.machine) as names:
                file = _write_new(disk, fresh, line(encode(record)), keep_space=not record.closed)
                try:
                    disk.link(fresh, path)
                    linked = True
                    disk.flush(names)
                except BaseException:
                    disk.close(file)
                    raise
                finally:
                    with suppress(OSError):
                        disk.unlink(fresh)
        except FileExistsError as error:
            raise JournalExists(first.machine) from error
        except OSError as error:
            if linked:
                raise JournalUncertain(first.machine, first.state, error) from error
            raise JournalUnwritable(first.machine, error) from error
        return cls(disk, path, file, record, 0)

    @classmethod
    def open(cls, folder: Path, machine: str, *, disk: Disk = _REAL) -> Self:
        """Become the journal's controller: read it, append OPENED, flush, and only then answer.

        Raises JournalUnreadable, JournalBusy, and JournalUncertain when OPENED could not be made durable.
        """
        path = _path(folder, machine)
        file = _lock_current(disk, path, machine)
        try:
            found, last = _read(disk, file, machine)
            journal = cls(disk, path, file, last, found.last_start)
            journal._open_under_lock(found)
        except BaseException:
            disk.close(file)
            raise
        disk.unlock(file)
        return journal

    def append(self, record: Record) -> Record:
        """Append one record after `last`, durable when this returns; answers with the record as it was written.

        Raises IllegalTransition, JournalMoved, JournalBusy or JournalUnwritable with nothing written, and
        JournalUncertain when nobody can know. After a RELEASED that is uncertain only ABORTED may follow, until the
        journal is opened anew: neither resume nor hand off before that ABORTED is durable, and if it fails too, append
        it again, stay stopped and say so.
        """
        self._check_successor(record)
        file = self._file
        with _locked(self._disk, file, record.machine):
            self._check_unmoved()
            try:
                self._settle_uncertain()
                self._keep_space(record)
                written = self._write(record)
            except OSError as error:
                raise JournalUncertain(record.machine, record.state, error) from error
            self._compact_when_large()
        if self._file != file:
            self._disk.close(file)
        return written

    def settle(self) -> bool:
        """Make the record whose append failed durable, so that what follows is made of it; say whether there was one.

        A RELEASED of which nobody knows is not settled so: only ABORTED may follow it.

        Raises JournalMoved, JournalBusy or JournalUnreadable with nothing written, and JournalUncertain as before.
        """
        wanted = self._uncertain
        if wanted is None or wanted.state is State.RELEASED:
            return False
        with _locked(self._disk, self._file, wanted.machine):
            self._check_unmoved()
            try:
                self._settle_uncertain()
            except OSError as error:
                raise JournalUncertain(wanted.machine, wanted.state, error) from error
        return True

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Keep everybody else from opening the journal, for what only its controller may do.

        Raises JournalMoved, JournalBusy or JournalUncertain, and then it may not be done.
        """
        if self._uncertain is not None:
            raise JournalUncertain(self._last.machine, self._uncertain.state, OSError("it was not flushed"))
        with _locked(self._disk, self._file, self._last.machine):
            self._check_unmoved()
            yield

    def close(self) -> None:
        """Give the file back; the journal stays as it is."""
        self._disk.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_under_lock(self, found: Scan) -> None:
        last = self._last
        try:
            if found.torn:
                self._disk.write(self._file, found.end, bytes(found.torn))
                self._disk.flush(self._file)
            # The last record may never have reached the disk: its writer may have died, or its flush may have failed
            # and left the pages marked as clean. Written once more, it is durable before anything follows it.
            self._disk.write(self._file, self._last_start, self._last_line)
            self._disk.flush(self._file)
            self._names_pending = True
            self._keep_space(last)
            self._write(msgspec.structs.replace(last, controller=last.controller + 1), opened=True)
        except OSError as error:
            raise JournalUncertain(last.machine, "OPENED", error) from error

    def _check_successor(self, record: Record) -> None:
        if record.machine != self._last.machine:
            raise InvalidInput("machine", f"A record of {record.machine} in the journal of {self._last.machine}")
        if self._uncertain is None:
            check_transition(self._last.state, record.state)
        elif self._uncertain.state is State.RELEASED:
            if record.state is not State.ABORTED:
                raise IllegalTransition(State.RELEASED, predecessors(record.state), record.state)
        else:
            try:
                check_transition(self._last.state, record.state)
            except IllegalTransition:
                check_transition(self._uncertain.state, record.state)

    def _check_unmoved(self) -> None:
        """The comparison of compare-and-append: the last record as a whole, nothing of another's behind it."""
        machine = self._last.machine
        try:
            at_path = self._disk.is_at(self._file, self._path)
            tail = self._disk.read(self._file, self._last_start)
        except OSError as error:
            raise JournalUnreadable(machine, str(error)) from error
        behind = tail[len(self._last_line) :]
        own = b"" if self._uncertain is None else line(encode(self._uncertain))
        strange = behind[len(own) :].strip(b"\0") or any(
            found not in {0, wrote} for found, wrote in zip(behind, own, strict=False)
        )
        if not at_path or not tail.startswith(self._last_line) or strange:
            raise JournalMoved(machine)

    def _settle_uncertain(self) -> None:
        """Write the uncertain record once more, durably, so that nothing is ever written behind a hole."""
        if self._uncertain is not None:
            written = self._uncertain
            self._write_line(written)
            self._advance(written)

    def _keep_space(self, record: Record) -> None:
        """Reserve for the closing records; it must succeed where an attempt opens, and is topped up while one is."""
        if record.closed:
            return
        length = _reserve_bytes(line(encode(record)))
        try:
            self._disk.reserve(self._file, self._last_start + len(self._last_line), length)
        except OSError as error:
            if self._last.closed:
                raise JournalUnwritable(record.machine, error) from error

    def _write(self, record: Record, *, opened: bool = False) -> Record:
        written = msgspec.structs.replace(
            record,
            sequence=self._last.sequence + 1,
            controller=record.controller if opened else self._last.controller,
            opened=opened,
        )
        self._uncertain = written
        self._write_line(written)
        self._advance(written)
        return written

    def _write_line(self, record: Record) -> None:
        self._flush_names()
        self._disk.write(self._file, self._last_start + len(self._last_line), line(encode(record)))
        self._disk.flush(self._file)

    def _advance(self, written: Record) -> None:
        self._last_start += len(self._last_line)
        self._last_line = line(encode(written))
        self._last = written
        self._uncertain = None

    def _flush_names(self) -> None:
        if self._names_pending:
            names = self._disk.open_folder(self._path.parent)
            try:
                self._disk.flush(names)
            finally:
                self._disk.close(names)
            self._names_pending = False

    def _compact_when_large(self) -> None:
        """Rewrite the file as its last record; a failure before the rename changes nothing and is tried again later."""
        if not self._last.closed or self._last_start + len(self._last_line) <= COMPACT_ABOVE:
            return
        fresh = self._path.parent / f".{self._last.machine}.compact"
        with suppress(OSError):
            file = _write_new(self._disk, fresh, self._last_line, keep_space=False)
            try:
                self._disk.rename(fresh, self._path)
            except BaseException:
                self._disk.close(file)
                raise
            self._file = file
            self._last_start = 0
            self._names_pending = True
            self._flush_names()


def read_last(folder: Path, machine: str, *, disk: Disk = _REAL, durable: bool = False) -> Record:
    """The last record, for showing only: it may not stand yet. `durable` writes it once more, so that it does."""
    file = _lock_current(disk, _path(folder, machine), machine)
    try:
        found, last = _read(disk, file, machine)
        if durable:
            disk.write(file, found.last_start, line(encode(last)))
            disk.flush(file)
    except OSError as error:
        raise JournalUncertain(machine, "the last record", error) from error
    finally:
        disk.close(file)
    return last


def machines(folder: Path, *, disk: Disk = _REAL) -> tuple[str, ...]:
    """The machines that this host has a journal of, tombstones included."""
    return tuple(name for name in disk.names(folder) if not name.startswith("."))


def _path(folder: Path, machine: str) -> Path:
    try:
        canonical = str(uuid.UUID(machine)) == machine
    except ValueError:
        canonical = False
    if not canonical:
        raise InvalidInput("machine", f"{machine!r} is not the UUID of a machine")
    return folder / machine


def _reserve_bytes(one: bytes) -> int:
    return _RESERVED_LINES * (len(one) + _LINE_GROWTH)


def _write_new(disk: Disk, path: Path, data: bytes, *, keep_space: bool) -> int:
    file = disk.create(path)
    try:
        if keep_space:
            disk.reserve(file, 0, _reserve_bytes(data))
        disk.write(file, 0, data)
        disk.flush(file)
    except BaseException:
        disk.close(file)
        with suppress(OSError):
            disk.unlink(path)
        raise
    return file


def _lock_current(disk: Disk, path: Path, machine: str) -> int:
    """Open and lock the file that `path` names while the lock is held: a compaction may replace it in between."""
    for _ in range(_COMPACTIONS_MET):
        try:
            file = disk.open(path)
        except OSError as error:
            raise JournalUnreadable(machine, error.strerror or str(error)) from error
        try:
            disk.lock(file)
            if disk.is_at(file, path):
                return file
        except OSError as error:
            disk.close(file)
            raise JournalBusy(machine) from error
        disk.close(file)
    raise JournalBusy(machine)


def _read(disk: Disk, file: int, machine: str) -> tuple[Scan, Record]:
    try:
        found = scan(disk.read(file, 0))
        records = [decode(payload) for payload in found.payloads]
    except (OSError, CorruptJournal, msgspec.DecodeError) as error:
        raise JournalUnreadable(machine, str(error)) from error
    first = records[0].sequence
    if any(record.machine != machine or record.sequence != first + at for at, record in enumerate(records)):
        raise JournalUnreadable(machine, "Its records do not follow each other")
    return found, records[-1]


@contextmanager
def _locked(disk: Disk, file: int, machine: str) -> Iterator[None]:
    try:
        disk.lock(file)
    except OSError as error:
        raise JournalBusy(machine) from error
    try:
        yield
    finally:
        disk.unlock(file)


@contextmanager
def _locked_folder(disk: Disk, folder: Path, machine: str) -> Iterator[int]:
    names = disk.open_folder(folder)
    try:
        with _locked(disk, names, machine):
            yield names
    finally:
        disk.close(names)
