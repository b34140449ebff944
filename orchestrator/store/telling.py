"""What a transaction in SQLite has to tell, written with what it tells of: events, owners, and the outbox of both."""

import sqlite3

from orchestrator.attempt import Attempt
from orchestrator.store.store import Ownership


def tell_event(db: sqlite3.Connection, attempt: Attempt, now: float) -> None:
    """Write a transition of an attempt, and have its driver publish it and the state that it leads to."""
    (last,) = db.execute(
        "SELECT coalesce(max(sequence), 0) FROM event WHERE attempt = ?", (attempt.attempt,)
    ).fetchone()
    outcome = attempt.outcome.value if attempt.outcome else None
    db.execute(
        "INSERT INTO event (attempt, sequence, phase, outcome, reason, at) VALUES (?, ?, ?, ?, ?, ?)",
        (attempt.attempt, last + 1, attempt.phase.value, outcome, attempt.reason, now),
    )
    tell(db, attempt.driver, "event", attempt.attempt, last + 1)
    tell(db, attempt.driver, "state", attempt.attempt, 0)


def tell_owner(db: sqlite3.Connection, owner: Ownership, driver: str) -> bool:
    """Write where a machine lives, unless a higher epoch is known, and have that published; say whether it stands."""
    cursor = db.execute(
        "INSERT INTO owner (machine, name, host, epoch) VALUES (?, ?, ?, ?) ON CONFLICT (machine) DO UPDATE "
        "SET name = excluded.name, host = excluded.host, epoch = excluded.epoch WHERE excluded.epoch > owner.epoch",
        (owner.machine, owner.name, owner.host, owner.epoch),
    )
    if cursor.rowcount:
        tell(db, driver, "owner", owner.machine, 0)
        return True
    row = db.execute("SELECT host, epoch FROM owner WHERE machine = ?", (owner.machine,)).fetchone()
    return (row["host"], row["epoch"]) == (owner.host, owner.epoch)


def tell(db: sqlite3.Connection, driver: str, kind: str, subject: str, sequence: int) -> None:
    """Have a driver publish something; `sequence` is that of an event, else 0."""
    db.execute(
        "INSERT INTO outbox (driver, kind, subject, sequence) VALUES (?, ?, ?, ?)", (driver, kind, subject, sequence)
    )
