"""The audit log: a file that is only ever appended to, one JSON document a line (vm_migration.link.audit says of what).

::

    {"who":"viaduct://home/operator/anna","address":"ipv4:10.0.0.9:51234","call":"Destination/Take","machine":"...",
     "attempt":"...","epoch":7,"term":1,"detail":"...","outcome":"done","code":"","schema":"viaduct.audit.v1",
     "time":"2026-01-02T03:04:05.678901Z","process":"viaduct-dest-agent"}

A line is one write(2), before the call's answer leaves: a crash of the process loses none, and both agents of a host
may share a file. The disk has it within `FLUSH_SECONDS`, an operator's word before the answer. Who cannot write goes
on, says so and what in its own log, and counts it: no machine waits for an audit log. A file that was moved away, as
logrotate does, is left, and another one begun.
"""

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from vm_migration.errors import InvalidInput
from vm_migration.link.audit import Entry
from vm_migration.telemetry import logs
from vm_migration.telemetry.counts import LOST_AUDIT_LINES

AUDIT_LOG: Final = "audit.jsonl"
"""Its name, where a folder is chosen for it: with the journals of agents, beside the store of the orchestrator."""
FLUSH_SECONDS: Final = 1.0
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_log: Final = logs.get(__name__)


class Line(Entry, frozen=True, kw_only=True):
    """One line; times are RFC 3339 in UTC."""

    schema: Literal["viaduct.audit.v1"] = "viaduct.audit.v1"
    time: str
    process: str


class AuditFile:
    """Appends to one file; `close` must be called."""

    def __init__(self, path: Path, process: str, clock: Callable[[], float] = time.time) -> None:
        """Open the file, which is made where it is not there.

        Raises:
            InvalidInput: It cannot be written, or others than its owner may write to it.
        """
        self._path: Final = path
        self._process: Final = process
        self._clock: Final = clock
        self._unflushed = False
        self._torn = False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._opened()
        except OSError as error:
            text = f"The audit log {path} cannot be written: {error.strerror}"
            raise InvalidInput("audit-unwritable", text, "Make its folder, or correct `[audit] file`") from None
        mode = stat.S_IMODE(os.fstat(self._file).st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            os.close(self._file)
            text = f"Others can write to the audit log {path} (mode {mode:04o})"
            raise InvalidInput("audit-writable", text, f"Run: chmod 600 {path}")

    def write(self, entry: Entry) -> None:
        """Append one line; what cannot be written is told in the log instead."""
        when = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        fields = {name: getattr(entry, name) for name in Entry.__struct_fields__}
        line = msgspec.json.encode(Line(time=when, process=self._process, **fields)) + b"\n"
        try:
            self._append(line)
            if entry.word:
                os.fdatasync(self._file)
        except OSError as error:
            LOST_AUDIT_LINES.add()
            _log.error("audit line not written", reason=error.strerror or str(error), line=line.decode())

    def to_flush(self) -> int | None:
        """Return a descriptor of what is not known to be on the disk, to be flushed and closed; None where all is."""
        if not self._unflushed:
            return None
        self._unflushed = False
        return os.dup(self._file)

    def close(self) -> None:
        """End it, with everything on the disk."""
        with suppress(OSError):
            os.fdatasync(self._file)
        os.close(self._file)

    def _append(self, line: bytes) -> None:
        self._follow()
        text = b"\n" + line if self._torn else line  # what was cut off by a full disk stays a line of its own
        written = os.write(self._file, text)
        self._torn = written != len(text)
        self._unflushed = True
        if self._torn:
            raise OSError(0, f"Only {written} of {len(text)} bytes could be written")

    def _follow(self) -> None:
        """Begin another file where the one that is open is not the one of this name any more."""
        mine = os.fstat(self._file)
        try:
            named = self._path.lstat()
        except FileNotFoundError:
            named = None
        if named is None or (named.st_ino, named.st_dev) != (mine.st_ino, mine.st_dev):
            fresh = self._opened()
            os.close(self._file)
            self._file, self._torn = fresh, False

    def _opened(self) -> int:
        return os.open(self._path, _FLAGS, 0o600)


@asynccontextmanager
async def audit_file(path: Path, process: str) -> AsyncIterator[AuditFile]:
    """Keep an audit log open, and its lines on the disk within `FLUSH_SECONDS`, while the context is entered.

    Raises:
        InvalidInput: As `AuditFile`.
    """
    file = AuditFile(path, process)
    task = asyncio.create_task(_flushing(file), name="audit log")
    try:
        yield file
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(file.close)


async def _flushing(file: AuditFile) -> None:
    while True:
        await asyncio.sleep(FLUSH_SECONDS)  # how much a power loss may cost
        try:
            await asyncio.to_thread(_flush, file.to_flush())
        except OSError as error:
            _log.error("audit log not flushed", reason=error.strerror or str(error))


def _flush(descriptor: int | None) -> None:
    if descriptor is not None:
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
