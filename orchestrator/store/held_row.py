"""What a driver may write to the row that it holds: pure decisions that every store makes the same."""

from dataclasses import dataclass, replace
from typing import Protocol

from orchestrator.attempt import Asked, Attempt, IllegalPhase, Outcome, Phase, may_follow
from orchestrator.store.store import TAKEN_OVER
from vm_migration.errors import Stale


class Held(Protocol):
    """What a write is decided on."""

    @property
    def driver(self) -> str:
        """Who drives."""

    @property
    def term(self) -> int:
        """In which term."""

    @property
    def phase(self) -> Phase:
        """Where it stands."""

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, or was left."""

    @property
    def heartbeat(self) -> float:
        """When the claim was renewed last."""

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody wants it cancelled."""

    @property
    def asked(self) -> Asked:
        """What was asked for beside its policy."""


@dataclass(frozen=True, slots=True)
class HeldRow:
    """That much of a row, read without the rest, which takes a hundred times as long."""

    driver: str
    term: int
    phase: Phase
    outcome: Outcome | None
    heartbeat: float
    cancel_requested: bool
    asked: Asked


def taken_over(attempt: str, driver: str, term: int) -> Stale:
    """Return the error for an attempt that somebody else drives."""
    text = f"Attempt {attempt} is driven by {driver or 'nobody'} in term {term} now"
    return Stale(TAKEN_OVER, text, f"Watch it: viaduct watch {attempt}")


def require_held(row: Held, attempt: Attempt) -> None:
    """Accept a row that still stands under this attempt's driver and term.

    Raises:
        Stale: Somebody else has taken the attempt over.
    """
    if (row.driver, row.term) != (attempt.driver, attempt.term):
        raise taken_over(attempt.attempt, row.driver, row.term)


def saved(before: Held, attempt: Attempt, now: float) -> Attempt:
    """Return the row after its driver has written an attempt; heartbeats and wishes are not undone.

    Raises:
        Stale: Somebody else has taken the attempt over.
        IllegalPhase: The row stands where the new phase cannot follow.
    """
    require_held(before, attempt)
    if not may_follow(before.phase, attempt.phase):
        raise IllegalPhase(before.phase, attempt.phase)
    return replace(
        attempt,
        updated_at=now,
        heartbeat=max(attempt.heartbeat, before.heartbeat),
        cancel_requested=before.cancel_requested or attempt.cancel_requested,
        asked=wishing(attempt, before.asked.bandwidth).asked,
    )


def wishing(attempt: Attempt, bandwidth: int | None) -> Attempt:
    """Return the row with a wish for bandwidth, in bytes a second, that was tuned last."""
    return replace(attempt, asked=replace(attempt.asked, bandwidth=bandwidth))


def renewed(before: Attempt, attempt: Attempt, now: float) -> Attempt:
    """Return the row after its claim was renewed, with what its source has told since it was written.

    Raises:
        Stale: Somebody else has taken the attempt over.
    """
    require_held(before, attempt)
    if before.ended or attempt.report is None or attempt.updated_at <= before.updated_at:
        return replace(before, heartbeat=now)
    return replace(before, heartbeat=now, report=attempt.report, updated_at=attempt.updated_at)


def is_event(before: Held, after: Held) -> bool:
    """Say whether a change of the row is a transition, which is told."""
    return (before.phase, before.outcome) != (after.phase, after.outcome)
