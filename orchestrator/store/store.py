"""The store: every method is one transaction, and either all of it happened or nothing.

Several processes use one file at once, each driving its own attempts. Methods are short and may be called from any
thread. Times are passed in, as seconds since 1970.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from orchestrator.attempt import Attempt, Event, IllegalPhase, may_follow
from orchestrator.store.claim import claimed
from orchestrator.store.entries import SqliteEntries
from orchestrator.store.rows import ATTEMPT_COLUMNS, attempt_from, attempt_row, event_from
from orchestrator.store.schema import connect
from vm_migration.errors import InvalidInput, Refused, Stale

TAKEN_OVER: Final = "attempt-taken-over"
STORE_UNUSABLE: Final = "store-unusable"
_INSERT: Final = (
    f"INSERT INTO attempt ({', '.join(ATTEMPT_COLUMNS)}) "  # noqa: S608 - the names are this package's own
    f"VALUES ({', '.join(':' + name for name in ATTEMPT_COLUMNS)})"
)
_UPDATE: Final = (
    f"UPDATE attempt SET {', '.join(f'{name} = :{name}' for name in ATTEMPT_COLUMNS)} "  # noqa: S608 - as above
    "WHERE attempt = :attempt"
)


@dataclass(frozen=True, slots=True)
class Ownership:
    """Where a machine lives."""

    machine: str
    name: str
    host: str
    epoch: int


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """Something that is yet to be published: an event or state of an attempt, or the owner of a machine."""

    number: int
    kind: str  # event | state | owner
    subject: str  # the attempt's or the machine's UUID
    sequence: int  # of the event; 0 otherwise


class Store:
    """One connection to the store's file."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            Refused: It cannot be used.
        """
        self.path = path
        self._lock = threading.Lock()
        self._connection = connect(path)
        self.entries = SqliteEntries(self._reading, self._writing)
        """What outlives a driver beside attempts."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was committed stays."""
        with self._lock:
            self._connection.close()

    # attempts

    def open_attempt(self, attempt: Attempt) -> Attempt:
        """Enter a new attempt; asked twice, answer with its row.

        Raises:
            Refused: Another attempt of this machine is open: code `attempt-open`, with its holder.
        """
        with self._writing() as db:
            if (known := _row(db, attempt.attempt)) is not None:
                return known
            holder = db.execute(
                "SELECT attempt, driver FROM attempt WHERE machine = ? AND ended = 0", (attempt.machine,)
            ).fetchone()
            if holder is not None:
                raise Refused(
                    "attempt-open",
                    f"Attempt {holder['attempt']} of {attempt.name} is open, held by {holder['driver'] or 'nobody'}",
                    f"Wait for its end (viaduct watch {holder['attempt']}) or cancel it (viaduct cancel ...)",
                )
            db.execute(_INSERT, attempt_row(attempt))
            _append(db, attempt, attempt.created_at)
            return attempt

    def claim(self, attempt_id: str, driver: str, now: float, *, sole: bool = False) -> Attempt:
        """Take the right to drive an attempt, with its next term where it had a driver, and tell how it stands.

        With `sole`, nobody else can have the driver's name: what stands under it was left by an earlier life.

        Raises:
            InvalidInput: No such attempt.
            Refused: It has ended, or another driver's heartbeat is fresh.
        """
        with self._writing() as db:
            row = claimed(_known(db, attempt_id), driver, now, sole=sole)
            db.execute(_UPDATE, attempt_row(row))
            db.execute("UPDATE outbox SET driver = ? WHERE subject = ?", (driver, attempt_id))
            _publish(db, driver, "state", attempt_id, 0)
            return row

    def heartbeat(self, attempt: Attempt, now: float) -> Attempt:
        """Renew a claim and return the row as it stands, a wish to cancel included.

        Raises:
            Stale: Somebody else has taken the attempt over.
        """
        with self._writing() as db:
            row = _held(db, attempt)
            db.execute("UPDATE attempt SET heartbeat = ? WHERE attempt = ?", (now, attempt.attempt))
            return replace(row, heartbeat=now)

    def save(
        self, attempt: Attempt, now: float, *, owner: Ownership | None = None, successor: Attempt | None = None
    ) -> Attempt:
        """Write an attempt that this driver holds; a new phase or outcome is an event and leaves through the outbox.

        With an owner, where the machine lives is written with it, unless a higher epoch is known. With a successor, the
        attempt that tries again after this one, which ends, is entered with it.

        Raises:
            Stale: Somebody else has taken the attempt over.
            IllegalPhase: The row stands where the new phase cannot follow.
        """
        with self._writing() as db:
            before = _held(db, attempt)
            if not may_follow(before.phase, attempt.phase):
                raise IllegalPhase(before.phase, attempt.phase)
            after = replace(
                attempt,
                updated_at=now,
                heartbeat=max(attempt.heartbeat, before.heartbeat),
                cancel_requested=before.cancel_requested or attempt.cancel_requested,
            )
            db.execute(_UPDATE, attempt_row(after))
            if (before.phase, before.outcome) != (after.phase, after.outcome):
                _append(db, after, now)
            if owner is not None:
                _own(db, owner, attempt.driver)
            if successor is not None:
                db.execute(_INSERT, attempt_row(successor))
                _append(db, successor, now)
            return after

    def let_go(self, attempt: Attempt) -> None:
        """Give a claim back without ending the attempt; the next driver takes the next term."""
        with self._writing() as db:
            db.execute(
                "UPDATE attempt SET driver = '' WHERE attempt = ? AND driver = ? AND term = ?",
                (attempt.attempt, attempt.driver, attempt.term),
            )

    def request_cancel(self, attempt_id: str) -> Attempt:
        """Leave a wish to cancel for whoever drives.

        Raises:
            InvalidInput: No such attempt.
        """
        with self._writing() as db:
            row = _known(db, attempt_id)
            db.execute("UPDATE attempt SET cancel_requested = 1 WHERE attempt = ?", (attempt_id,))
            return replace(row, cancel_requested=True)

    def get(self, attempt_id: str) -> Attempt:
        """Return an attempt.

        Raises:
            InvalidInput: No such attempt.
        """
        with self._reading() as db:
            return _known(db, attempt_id)

    def has(self, attempt_id: str) -> bool:
        """Say whether an attempt is known."""
        with self._reading() as db:
            return _row(db, attempt_id) is not None

    def find(self, start: str) -> Attempt:
        """Return the one attempt whose identifier starts so.

        Raises:
            InvalidInput: None does, or several do.
        """
        pattern = start.lower()
        with self._reading() as db:
            rows = db.execute(
                "SELECT * FROM attempt WHERE substr(attempt, 1, ?) = ? LIMIT 2", (len(pattern), pattern)
            ).fetchall()
        if len(rows) == 1 and pattern:
            return attempt_from(rows[0])
        if rows and pattern:
            raise InvalidInput("ambiguous-attempt", f'Several attempts start with "{start}"', "Give more of it")
        raise unknown_attempt(start)

    def attempts(self, *, everything: bool = False, limit: int = 1000) -> tuple[Attempt, ...]:
        """Return the open attempts, or all of them, newest first."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT * FROM attempt WHERE ended = 0 OR ? ORDER BY created_at DESC LIMIT ?", (everything, limit)
            ).fetchall()
        return tuple(attempt_from(row) for row in rows)

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
            return _own(db, owner, driver)

    def owners(self) -> tuple[Ownership, ...]:
        """Return where every known machine lives."""
        with self._reading() as db:
            rows = db.execute("SELECT machine, name, host, epoch FROM owner ORDER BY name").fetchall()
        return tuple(Ownership(*row) for row in rows)

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
        with self._lock, self._translated():
            yield self._connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            hint = "Check that its disk has space and that no process has held it for long"
            raise Refused(STORE_UNUSABLE, f"The store {self.path} cannot be used: {error}", hint) from None


def unknown_attempt(attempt_id: str) -> InvalidInput:
    """Return the error for an identifier that fits no attempt."""
    return InvalidInput("unknown-attempt", f'No attempt "{attempt_id}" is known', "See them all: viaduct list --all")


def _row(db: sqlite3.Connection, attempt_id: str) -> Attempt | None:
    row = db.execute("SELECT * FROM attempt WHERE attempt = ?", (attempt_id,)).fetchone()
    return attempt_from(row) if row is not None else None


def _known(db: sqlite3.Connection, attempt_id: str) -> Attempt:
    if (row := _row(db, attempt_id)) is None:
        raise unknown_attempt(attempt_id)
    return row


def _held(db: sqlite3.Connection, attempt: Attempt) -> Attempt:
    row = _known(db, attempt.attempt)
    if (row.driver, row.term) != (attempt.driver, attempt.term):
        raise Stale(
            TAKEN_OVER,
            f"Attempt {attempt.attempt} is driven by {row.driver or 'nobody'} in term {row.term} now",
            f"Watch it: viaduct watch {attempt.attempt}",
        )
    return row


def _append(db: sqlite3.Connection, attempt: Attempt, now: float) -> None:
    (last,) = db.execute(
        "SELECT coalesce(max(sequence), 0) FROM event WHERE attempt = ?", (attempt.attempt,)
    ).fetchone()
    outcome = attempt.outcome.value if attempt.outcome else None
    db.execute(
        "INSERT INTO event (attempt, sequence, phase, outcome, reason, at) VALUES (?, ?, ?, ?, ?, ?)",
        (attempt.attempt, last + 1, attempt.phase.value, outcome, attempt.reason, now),
    )
    _publish(db, attempt.driver, "event", attempt.attempt, last + 1)
    _publish(db, attempt.driver, "state", attempt.attempt, 0)


def _own(db: sqlite3.Connection, owner: Ownership, driver: str) -> bool:
    cursor = db.execute(
        "INSERT INTO owner (machine, name, host, epoch) VALUES (?, ?, ?, ?) ON CONFLICT (machine) DO UPDATE "
        "SET name = excluded.name, host = excluded.host, epoch = excluded.epoch WHERE excluded.epoch > owner.epoch",
        (owner.machine, owner.name, owner.host, owner.epoch),
    )
    if cursor.rowcount:
        _publish(db, driver, "owner", owner.machine, 0)
        return True
    row = db.execute("SELECT host, epoch FROM owner WHERE machine = ?", (owner.machine,)).fetchone()
    return (row["host"], row["epoch"]) == (owner.host, owner.epoch)


def _publish(db: sqlite3.Connection, driver: str, kind: str, subject: str, sequence: int) -> None:
    db.execute(
        "INSERT INTO outbox (driver, kind, subject, sequence) VALUES (?, ?, ?, ?)", (driver, kind, subject, sequence)
    )
