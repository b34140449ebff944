"""What a driver may write to the row that it holds: pure decisions that every store makes the same."""

from dataclasses import replace

from orchestrator.attempt import Attempt, IllegalPhase, may_follow
from orchestrator.store.store import TAKEN_OVER
from vm_migration.errors import Stale


def require_held(row: Attempt, attempt: Attempt) -> None:
    """Accept a row that still stands under this attempt's driver and term.

    Raises:
        Stale: Somebody else has taken the attempt over.
    """
    if (row.driver, row.term) != (attempt.driver, attempt.term):
        raise Stale(
            TAKEN_OVER,
            f"Attempt {attempt.attempt} is driven by {row.driver or 'nobody'} in term {row.term} now",
            f"Watch it: viaduct watch {attempt.attempt}",
        )


def saved(before: Attempt, attempt: Attempt, now: float) -> Attempt:
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


def is_event(before: Attempt, after: Attempt) -> bool:
    """Say whether a change of the row is a transition, which is told."""
    return (before.phase, before.outcome) != (after.phase, after.outcome)
