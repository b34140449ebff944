"""Attempts and events <-> rows of the store."""

import sqlite3
from typing import Final

import msgspec

from orchestrator.attempt import Asked, Attempt, Event, Fault, Notice, Outcome, Phase, Retry
from orchestrator.policy import MigrationPolicy
from orchestrator.store.message_text import message_in, text_of
from orchestrator.store.store import OpenRow
from vm_migration.api.v1 import source_pb2, types_pb2

Column = str | int | float | None
ATTEMPT_COLUMNS: Final = (
    *("attempt", "machine", "name", "source", "destination", "policy", "created_at", "updated_at", "priority", "epoch"),
    *("term", "phase", "outcome", "reason", "prepare_ms", "error", "blockers", "warnings", "expected", "report"),
    *("shared_clock", "driver", "heartbeat", "cancel_requested", "ended", "retry", "asked"),
)


def attempt_row(attempt: Attempt) -> dict[str, Column]:
    """Return an attempt as columns."""
    return {
        "attempt": attempt.attempt,
        "machine": attempt.machine,
        "name": attempt.name,
        "source": attempt.source,
        "destination": attempt.destination,
        "policy": _text(attempt.policy),
        "created_at": attempt.created_at,
        "updated_at": attempt.updated_at,
        "priority": attempt.priority,
        "epoch": attempt.epoch,
        "term": attempt.term,
        "phase": attempt.phase.value,
        "outcome": attempt.outcome.value if attempt.outcome else None,
        "reason": attempt.reason,
        "prepare_ms": attempt.prepare_ms,
        "error": _text(attempt.error) if attempt.error else None,
        "blockers": _text(attempt.blockers),
        "warnings": _text(attempt.warnings),
        "expected": text_of(attempt.expected, whole=False) if attempt.expected else None,
        "report": report_text(attempt),
        "shared_clock": int(attempt.shared_clock),
        "driver": attempt.driver,
        "heartbeat": attempt.heartbeat,
        "cancel_requested": int(attempt.cancel_requested),
        "ended": int(attempt.ended),
        "retry": _text(attempt.retry) if attempt.retry != Retry() else "",
        "asked": _text(attempt.asked) if attempt.asked != Asked() else "",
    }


def asked_from(row: sqlite3.Row) -> Asked:
    """Read what an order said beside its policy."""
    return msgspec.json.decode(row["asked"], type=Asked) if row["asked"] else Asked()


def report_text(attempt: Attempt) -> str | None:
    """Return the column of what an attempt's source told last."""
    return text_of(attempt.report, whole=attempt.ended) if attempt.report is not None else None


def attempt_from(row: sqlite3.Row) -> Attempt:
    """Read an attempt from its row."""
    return Attempt(
        attempt=row["attempt"],
        machine=row["machine"],
        name=row["name"],
        source=row["source"],
        destination=row["destination"],
        policy=msgspec.json.decode(row["policy"], type=MigrationPolicy),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        priority=row["priority"],
        epoch=row["epoch"],
        term=row["term"],
        phase=Phase(row["phase"]),
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        reason=row["reason"],
        prepare_ms=row["prepare_ms"],
        error=msgspec.json.decode(row["error"], type=Fault) if row["error"] else None,
        blockers=msgspec.json.decode(row["blockers"], type=tuple[Notice, ...]),
        warnings=msgspec.json.decode(row["warnings"], type=tuple[Notice, ...]),
        expected=message_in(row["expected"], types_pb2.Expected()) if row["expected"] else None,
        report=message_in(row["report"], source_pb2.AttemptReport()) if row["report"] else None,
        shared_clock=bool(row["shared_clock"]),
        driver=row["driver"],
        heartbeat=row["heartbeat"],
        cancel_requested=bool(row["cancel_requested"]),
        retry=msgspec.json.decode(row["retry"], type=Retry) if row["retry"] else Retry(),
        asked=asked_from(row),
    )


def open_rows_from(text: str) -> tuple[OpenRow, ...]:
    """Read open rows from the JSON that they were gathered in."""
    return msgspec.json.decode(text, type=tuple[OpenRow, ...])


def events_from(text: str) -> dict[str, tuple[Event, ...]]:
    """Read events from the JSON that they were gathered in, in order, by attempt."""
    found: dict[str, tuple[Event, ...]] = {}
    for event in msgspec.json.decode(text, type=tuple[Event, ...]):
        found[event.attempt] = (*found.get(event.attempt, ()), event)
    return found


def event_from(row: sqlite3.Row) -> Event:
    """Read an event from its row."""
    return Event(
        attempt=row["attempt"],
        sequence=row["sequence"],
        phase=Phase(row["phase"]),
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        reason=row["reason"],
        at=row["at"],
    )


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
