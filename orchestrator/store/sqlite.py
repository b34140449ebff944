"""The store in one SQLite file, which several processes of one host may use at once."""

import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from orchestrator.attempt import Attempt, Event, Outcome, Phase
from orchestrator.store.claim import claimed
from orchestrator.store.entries import SqliteEntries, between
from orchestrator.store.held_row import HeldRow, is_event, require_held, saved, wishing
from orchestrator.store.rows import (
    ATTEMPT_COLUMNS,
    asked_from,
    attempt_from,
    attempt_row,
    event_from,
    events_from,
    open_rows_from,
    report_text,
)
from orchestrator.store.schema import IN_MEMORY, connect
from orchestrator.store.store import (
    STORE_UNUSABLE,
    OpenRow,
    OutboxRow,
    Ownership,
    attempt_open,
    only_match,
    unknown_attempt,
)
from orchestrator.store.telling import tell, tell_event, tell_owner
from vm_migration.errors import Refused

_INSERT: Final = (
    f"INSERT INTO attempt ({', '.join(ATTEMPT_COLUMNS)}) "  # noqa: S608 - the names are this package's own
    f"VALUES ({', '.join(':' + name for name in ATTEMPT_COLUMNS)})"
)
_UPDATE: Final = (
    f"UPDATE attempt SET {', '.join(f'{name} = :{name}' for name in ATTEMPT_COLUMNS)} "  # noqa: S608 - as above
    "WHERE attempt = :attempt"
)
_RENEW: Final = (
    "UPDATE attempt SET heartbeat = :now, "
    "report = CASE WHEN ended = 0 AND updated_at < :updated_at THEN coalesce(:report, report) ELSE report END, "
    "updated_at = CASE WHEN ended = 0 AND :report IS NOT NULL THEN max(updated_at, :updated_at) ELSE updated_at END "
    "WHERE attempt = :attempt AND driver = :driver AND term = :term"
)
_HELD: Final = "SELECT driver, term, phase, outcome, heartbeat, cancel_requested, asked FROM attempt WHERE attempt = ?"
_OPEN: Final = (
    "SELECT json_group_array(json_object('attempt', attempt, 'source', source, 'destination', destination, "
    "'phase', phase, 'outcome', outcome, 'driver', driver, 'term', term, 'heartbeat', heartbeat, "
    "'cancel_requested', json(iif(cancel_requested, 'true', 'false')), 'asked', json(iif(asked = '', '{}', asked)))) "
    "FROM attempt WHERE ended = 0"
)
_EVENTS: Final = (
    "SELECT json_group_array(json_object('attempt', attempt, 'sequence', sequence, 'phase', phase, "
    "'outcome', outcome, 'reason', reason, 'at', at)) "
    "FROM (SELECT * FROM event WHERE attempt IN ({marks}) ORDER BY attempt, sequence)"
)
"""One row of many: the interpreter's lock is let go of with each row, and may be long in coming back."""


class SqliteStore:
    """A Store: one connection to its file."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            Refused: It cannot be used.
        """
        self.path = path
        self._lock = threading.Lock()
        self._connection = connect(path)
        # Who reads waits for nobody who writes: the log is written ahead. In memory there is one connection to read by.
        self._read_lock = self._lock if path == IN_MEMORY else threading.Lock()
        self._reader = self._connection if path == IN_MEMORY else connect(path)
        self.entries = SqliteEntries(self._reading, self._writing)
        """What outlives a driver beside attempts."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was committed stays."""
        with self._read_lock:
            self._reader.close()
        with self._lock:
            self._connection.close()

    # attempts

    def open_attempt(self, attempt: Attempt) -> Attempt:
        """Enter a new attempt; asked twice, answer with its row."""
        with self._writing() as db:
            if (known := _row(db, attempt.attempt)) is not None:
                return known
            holder = db.execute(
                "SELECT attempt, driver FROM attempt WHERE machine = ? AND ended = 0", (attempt.machine,)
            ).fetchone()
            if holder is not None:
                raise attempt_open(attempt, holder["attempt"], holder["driver"])
            db.execute(_INSERT, attempt_row(attempt))
            tell_event(db, attempt, attempt.created_at)
            return attempt

    def claim(self, attempt_id: str, driver: str, now: float, *, sole: bool = False) -> Attempt:
        """Take the right to drive an attempt, with its next term where it had a driver, and tell how it stands."""
        with self._writing() as db:
            return _claim(db, _known(db, attempt_id), driver, now, sole=sole)

    def claim_all(self, attempts: Sequence[str], driver: str, now: float, *, sole: bool = False) -> tuple[Attempt, ...]:
        """Claim many, and return those that this driver drives now."""
        found = []
        with self._writing() as db:
            rows = db.execute(f"SELECT * FROM attempt WHERE attempt IN ({_marks(attempts)})", attempts).fetchall()  # noqa: S608 - as above
            for row in map(attempt_from, rows):
                with suppress(Refused):  # it has ended, or another driver holds it
                    found.append(_claim(db, row, driver, now, sole=sole))
        return tuple(found)

    def heartbeat(self, attempt: Attempt, now: float) -> Attempt:
        """Renew a claim and return the row as it stands, a wish to cancel included."""
        with self._writing() as db:
            row = _held(db, attempt)
            db.execute("UPDATE attempt SET heartbeat = ? WHERE attempt = ?", (now, attempt.attempt))
            return replace(row, heartbeat=now)

    def renew(self, attempts: Sequence[Attempt], now: float) -> frozenset[str]:
        """Renew many claims with what their sources have told since; return those that somebody else has taken."""
        values = [
            {
                "now": now,
                "updated_at": one.updated_at,
                "report": report_text(one),
                "attempt": one.attempt,
                "driver": one.driver,
                "term": one.term,
            }
            for one in attempts
        ]
        with self._writing() as db:
            return frozenset(str(one["attempt"]) for one in values if not db.execute(_RENEW, one).rowcount)

    def save(
        self, attempt: Attempt, now: float, *, owner: Ownership | None = None, successor: Attempt | None = None
    ) -> Attempt:
        """Write an attempt that this driver holds; a new phase or outcome is an event and leaves through the outbox."""
        with self._writing() as db:
            before = _standing(db, attempt.attempt)
            after = saved(before, attempt, now)
            db.execute(_UPDATE, attempt_row(after))
            if is_event(before, after):
                tell_event(db, after, now)
            if owner is not None:
                tell_owner(db, owner, attempt.driver)
            if successor is not None and _row(db, successor.attempt) is None:
                db.execute(_INSERT, attempt_row(successor))
                tell_event(db, successor, now)
            return after

    def let_go(self, attempt: Attempt) -> None:
        """Give a claim back without ending the attempt; the next driver takes the next term."""
        with self._writing() as db:
            db.execute(
                "UPDATE attempt SET driver = '' WHERE attempt = ? AND driver = ? AND term = ?",
                (attempt.attempt, attempt.driver, attempt.term),
            )

    def request_cancel(self, attempt_id: str) -> Attempt:
        """Leave a wish to cancel for whoever drives."""
        with self._writing() as db:
            row = _known(db, attempt_id)
            db.execute("UPDATE attempt SET cancel_requested = 1 WHERE attempt = ?", (attempt_id,))
            return replace(row, cancel_requested=True)

    def request_bandwidth(self, attempt_id: str, bytes_per_s: int) -> Attempt:
        """Leave a wish for bandwidth, 0 for as much as there is, for whoever drives."""
        with self._writing() as db:
            row = wishing(_known(db, attempt_id), bytes_per_s)
            db.execute("UPDATE attempt SET asked = :asked WHERE attempt = :attempt", attempt_row(row))
            return row

    def get(self, attempt_id: str) -> Attempt:
        """Return an attempt."""
        with self._reading() as db:
            return _known(db, attempt_id)

    def has(self, attempt_id: str) -> bool:
        """Say whether an attempt is known."""
        with self._reading() as db:
            return _row(db, attempt_id) is not None

    def find(self, start: str) -> Attempt:
        """Return the one attempt whose identifier starts so."""
        pattern = start.lower()
        with self._reading() as db:
            rows = db.execute(
                "SELECT * FROM attempt WHERE attempt >= ? AND attempt < ? LIMIT 2", between(pattern)
            ).fetchall()
        return only_match(pattern, [attempt_from(row) for row in rows])

    def attempts(self, *, everything: bool = False, limit: int = 1000) -> tuple[Attempt, ...]:
        """Return every open attempt, and with `everything` the `limit` newest of those that ended; newest first."""
        newest = "attempt IN (SELECT attempt FROM attempt WHERE ended = 1 ORDER BY created_at DESC LIMIT ?)"
        return self._open_or(newest, limit if everything else 0)

    def standing(self, since: float) -> tuple[Attempt, ...]:
        """Return every open attempt, and those that ended after a time, newest first."""
        return self._open_or("updated_at > ?", since)

    def _open_or(self, which: str, value: float) -> tuple[Attempt, ...]:
        with self._reading() as db:
            select = f"SELECT * FROM attempt WHERE ended = 0 OR {which} ORDER BY created_at DESC"  # noqa: S608 - as above
            rows = db.execute(select, (value,)).fetchall()
        return tuple(attempt_from(row) for row in rows)

    def open_rows(self) -> tuple[OpenRow, ...]:
        """Return what is looked at often of every open attempt."""
        with self._reading() as db:
            (text,) = db.execute(_OPEN).fetchone()
        return open_rows_from(text)

    def open_attempt_of(self, machine: str) -> Attempt | None:
        """Return a machine's open attempt."""
        with self._reading() as db:
            row = db.execute("SELECT * FROM attempt WHERE machine = ? AND ended = 0", (machine,)).fetchone()
        return attempt_from(row) if row is not None else None

    def events(self, attempt_id: str, *, after: int = 0) -> tuple[Event, ...]:
        """Return an attempt's events past a sequence number, in order."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT * FROM event WHERE attempt = ? AND sequence > ? ORDER BY sequence", (attempt_id, after)
            ).fetchall()
        return tuple(event_from(row) for row in rows)

    def with_events(self, attempts: Collection[str]) -> dict[str, tuple[Attempt, tuple[Event, ...]]]:
        """Return those attempts that are known, each with its events; none is newer than the attempt."""
        wanted, marks = tuple(attempts), _marks(attempts)
        with self._reading() as db:
            (text,) = db.execute(_EVENTS.format(marks=marks), wanted).fetchone()
            rows = db.execute(f"SELECT * FROM attempt WHERE attempt IN ({marks})", wanted).fetchall()  # noqa: S608 - as above
        events = events_from(text)
        return {row["attempt"]: (attempt_from(row), events.get(row["attempt"], ())) for row in rows}

    def prune(self, before: float) -> int:
        """Forget attempts that ended before a time and are published; return how many."""
        with self._writing() as db:
            cursor = db.execute(
                "DELETE FROM attempt WHERE ended = 1 AND updated_at < ? "
                "AND attempt NOT IN (SELECT subject FROM outbox)",
                (before,),
            )
            return cursor.rowcount

    # owners

    def record_owner(self, owner: Ownership, driver: str) -> bool:
        """Write where a machine lives, unless a higher epoch is known; say whether this one stands."""
        with self._writing() as db:
            return tell_owner(db, owner, driver)

    def owners(self) -> tuple[Ownership, ...]:
        """Return where every known machine lives."""
        with self._reading() as db:
            rows = db.execute("SELECT machine, name, host, epoch FROM owner ORDER BY name").fetchall()
        return tuple(Ownership(*row) for row in rows)

    def owner_of(self, machine: str) -> Ownership | None:
        """Return where a machine lives, where that is known."""
        with self._reading() as db:
            row = db.execute("SELECT machine, name, host, epoch FROM owner WHERE machine = ?", (machine,)).fetchone()
        return Ownership(*row) if row is not None else None

    # outbox

    def pending(self, driver: str, limit: int) -> Sequence[OutboxRow]:
        """Return what this driver has yet to publish, oldest first."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT number, kind, subject, sequence FROM outbox WHERE driver = ? ORDER BY number LIMIT ?",
                (driver, limit),
            ).fetchall()
        return tuple(OutboxRow(*row) for row in rows)

    def acknowledge(self, driver: str, number: int) -> None:
        """Forget this driver's outbox up to a number: the broker has it."""
        with self._writing() as db:
            db.execute("DELETE FROM outbox WHERE driver = ? AND number <= ?", (driver, number))

    def adopt_outbox(self, driver: str, now: float, silence: float) -> None:
        """Take over what drivers left unpublished that have no open attempt with a heartbeat within a silence."""
        with self._writing() as db:
            db.execute(
                "UPDATE outbox SET driver = ? WHERE driver NOT IN "
                "(SELECT driver FROM attempt WHERE ended = 0 AND heartbeat > ?)",
                (driver, now - silence),
            )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:
                yield self._connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock, self._translated():
            yield self._reader

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            hint = "Check that its disk has space and that no process has held it for long"
            raise Refused(STORE_UNUSABLE, f"The store {self.path} cannot be used: {error}", hint) from None


def _marks(values: Collection[str]) -> str:
    """Return as many places for values as there are."""
    return ", ".join("?" * len(values))


def _claim(db: sqlite3.Connection, row: Attempt, driver: str, now: float, *, sole: bool) -> Attempt:
    after = claimed(row, driver, now, sole=sole)
    db.execute(
        "UPDATE attempt SET driver = ?, heartbeat = ?, term = ? WHERE attempt = ?",
        (after.driver, after.heartbeat, after.term, after.attempt),
    )
    db.execute("UPDATE outbox SET driver = ? WHERE subject = ?", (driver, after.attempt))
    tell(db, driver, "state", after.attempt, 0)
    return after


def _row(db: sqlite3.Connection, attempt_id: str) -> Attempt | None:
    row = db.execute("SELECT * FROM attempt WHERE attempt = ?", (attempt_id,)).fetchone()
    return attempt_from(row) if row is not None else None


def _known(db: sqlite3.Connection, attempt_id: str) -> Attempt:
    if (row := _row(db, attempt_id)) is None:
        raise unknown_attempt(attempt_id)
    return row


def _standing(db: sqlite3.Connection, attempt_id: str) -> HeldRow:
    row = db.execute(_HELD, (attempt_id,)).fetchone()
    if row is None:
        raise unknown_attempt(attempt_id)
    return HeldRow(
        row["driver"],
        row["term"],
        Phase(row["phase"]),
        Outcome(row["outcome"]) if row["outcome"] else None,
        row["heartbeat"],
        bool(row["cancel_requested"]),
        asked_from(row),
    )


def _held(db: sqlite3.Connection, attempt: Attempt) -> Attempt:
    row = _known(db, attempt.attempt)
    require_held(row, attempt)
    return row
