"""Hands on an attempt, whoever drives it: cancel, force and tune go to its source agent, with the row's own key.

A driver hears of a wish to cancel through the store as well: before the attempt has begun, no agent knows of it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from orchestrator.attempt import PAST_RETURN, Attempt, Phase, with_report
from orchestrator.limits import rate_wanted
from orchestrator.settling import drive_briefly
from orchestrator.surroundings import Surroundings
from vm_migration.api.v1 import source_pb2
from vm_migration.errors import InvalidInput, MigrationError, Refused, Stale

_BEFORE_ROUNDS: Final = frozenset({Phase.QUEUED, Phase.PREFLIGHT, Phase.BEGINNING, Phase.PREPARING, Phase.BEGUN})


async def cancel(around: Surroundings, attempt: Attempt) -> Attempt:
    """Cancel an attempt before the point of no return.

    Raises:
        Refused: It has ended, or is past the point of no return.
        MigrationError: What its source answered.
    """
    _require_open(attempt, "cancel")
    try:
        row = await asyncio.to_thread(around.store.request_cancel, attempt.attempt)
    except InvalidInput:  # only its hosts know it
        return await _answered(attempt, around.agents.cancel(attempt.source, attempt.key()))
    forgotten: MigrationError | None = None
    if row.epoch:
        try:
            row = await _answered(row, around.agents.cancel(row.source, row.key()))
        except (InvalidInput, Stale) as error:  # its source has gone on since; the journals know the end
            forgotten = error
    row = await _ended_by_nobody(around, row)
    if forgotten is not None and not row.ended:
        raise forgotten
    return row


async def _ended_by_nobody(around: Surroundings, row: Attempt) -> Attempt:
    """Bring an attempt to its end that nobody drives; who drives one hears of the wish, before it begins too."""
    try:
        claimed = await asyncio.to_thread(around.store.claim, row.attempt, around.driver, around.clock())
    except Refused:
        return row
    return await drive_briefly(around, claimed)


async def force(around: Surroundings, attempt: Attempt) -> Attempt:
    """Switch over at once, whatever the standstill.

    Raises:
        Refused: It sends no rounds: not yet, or not any more.
        MigrationError: What its source answered.
    """
    _require_open(attempt, "force")
    if attempt.phase in _BEFORE_ROUNDS:
        raise Refused(
            "not-in-rounds",
            f"Attempt {attempt.attempt} sends no memory yet ({attempt.phase})",
            f"Force it when it is in pre-copy: viaduct watch {attempt.attempt}",
        )
    return await _answered(attempt, around.agents.force(attempt.source, attempt.key()))


def as_wanted(_attempt: Attempt, bytes_per_s: int) -> int:
    """Give an attempt what it wants."""
    return bytes_per_s


async def tune(
    around: Surroundings,
    attempt: Attempt,
    *,
    downtime_limit_ms: int,
    max_bandwidth_bytes_per_s: int,
    within: Callable[[Attempt, int], int] = as_wanted,
) -> Attempt:
    """Change limits of an attempt that has begun; 0 leaves one as it is, UNLIMITED takes a limit away.

    The bandwidth is written down as what the attempt wants from now on; `within` says what it gets of that.

    Raises:
        InvalidInput: Nothing is to be changed.
        Refused: It has not begun, has ended, or is past the point of no return.
        MigrationError: What its source answered.
    """
    if not downtime_limit_ms and not max_bandwidth_bytes_per_s:
        raise nothing_to_tune()
    _require_open(attempt, "tune")
    if not attempt.epoch:
        hint = f"Tune it when it has begun: viaduct watch {attempt.attempt}"
        raise Refused("not-begun", f"Attempt {attempt.attempt} has not begun ({attempt.phase})", hint)
    request = source_pb2.TuneRequest(
        key=attempt.key(),
        downtime_limit_ms=downtime_limit_ms,
        max_bandwidth_bytes_per_s=max_bandwidth_bytes_per_s and within(attempt, max_bandwidth_bytes_per_s),
    )
    tuned = await _answered(attempt, around.agents.tune(attempt.source, request))
    if max_bandwidth_bytes_per_s:
        wanted = rate_wanted(max_bandwidth_bytes_per_s)
        with contextlib.suppress(InvalidInput):  # only its hosts know it
            await asyncio.to_thread(around.store.request_bandwidth, attempt.attempt, wanted)
    return tuned


def nothing_to_tune() -> InvalidInput:
    """Return the refusal of a tune without a limit."""
    hint = "Give --downtime-limit, --max-bandwidth or both"
    return InvalidInput("nothing-to-tune", "No limit is given, so that nothing would change", hint)


async def _answered(attempt: Attempt, answer: Awaitable[source_pb2.AttemptReport]) -> Attempt:
    return with_report(attempt, await answer)


def _require_open(attempt: Attempt, what: str) -> None:
    if attempt.ended:
        again = attempt.retry.next
        hint = f"It is tried again: viaduct {what} {again}" if again else f"There is nothing to {what}"
        raise Refused("attempt-ended", f"Attempt {attempt.attempt} has ended: {attempt.outcome}", hint)
    if attempt.phase in PAST_RETURN:
        raise Refused(
            "past-return",
            f"Attempt {attempt.attempt} is past the point of no return ({attempt.phase})",
            f"Wait for its end: viaduct watch {attempt.attempt}",
        )
