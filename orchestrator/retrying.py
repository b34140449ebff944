"""When a failed attempt is tried again, after how long, and where to. Decided purely; only hosts are asked.

A retry is an attempt of its own, with its own identifier and its own epoch, in a row of its own that is entered in the
transaction which ends the one before. It follows `failed` alone: what was cancelled, lost or unresolved, or what the
machine itself refuses, is not tried again. A retry that finds no way, because a host did not answer or has no
room, counts as one that failed.

The wait is drawn at random between half and all of 1 s, 2 s, 4 s ... 60 s, so that machines which failed together do
not come back together. No retry begins once all tries together have taken longer than each of them may, and the waits.
"""

import asyncio
from dataclasses import replace
from typing import Final

from orchestrator.attempt import Attempt, Outcome
from orchestrator.destination import Beside, find_destination
from orchestrator.maintenance import choice_now
from orchestrator.policy import policy_to
from orchestrator.preflight import require_choosable
from orchestrator.surroundings import Surroundings
from vm_migration.api.v1.types_pb2 import MachineStatus

MOST_RETRIES: Final = 10
FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
CLOCKS_APART: Final = 60.0
"""How far apart the clocks of two orchestrators may be for a wait to be as long as it was meant, give or take that."""
_PREPARE_ALLOWANCE: Final = 60.0
DRIVER_GONE: Final = "driver-gone"
PASSING: Final = frozenset(
    {
        "unreachable",
        "no-memory",
        "machine-exists",
        "attempt-open",
        "former-source-open",
        "run-state-owed",
        "stopping",
        "too-many-attempts",
        "too-many-arrivals",
        "too-many-calls",
    }
)
"""Refusals that a retry may find gone later; all others are the machine's, or the order's."""


def may_retry(attempt: Attempt, now: float) -> bool:
    """Say whether an attempt that ended is tried again."""
    retry = attempt.retry
    if not retry.left or attempt.cancel_requested or now > _latest(attempt):
        return False
    if attempt.outcome == Outcome.FAILED:
        return True
    if attempt.outcome != Outcome.REFUSED or not retry.earlier:
        return False
    return may_pass(attempt)


def may_pass(attempt: Attempt) -> bool:
    """Say whether all that an attempt was refused for may be gone later."""
    codes = {one.code for one in attempt.blockers} or {attempt.error.code if attempt.error is not None else ""}
    return codes <= PASSING


def never_started(attempt: Attempt) -> bool:
    """Say whether an attempt was given up only because its driver went before it started: nobody is at fault."""
    gone = attempt.error is not None and attempt.error.code == DRIVER_GONE
    return gone and attempt.outcome == Outcome.FAILED


def successor(attempt: Attempt, now: float, identifier: str, fraction: float) -> Attempt:
    """Return the attempt that tries again; `fraction` is a random number between 0 and 1."""
    retry = attempt.retry
    wait = wait_seconds(len(retry.earlier), fraction)
    why = attempt.error.code if attempt.error is not None else str(attempt.outcome)
    return Attempt(
        attempt=identifier,
        machine=attempt.machine,
        name=attempt.name,
        source=attempt.source,
        destination=attempt.destination,
        policy=attempt.policy,
        created_at=now,
        updated_at=now,
        priority=attempt.priority,
        reason=f"waits {wait:.1f} s after attempt {attempt.attempt[:8]} failed: {why}",
        driver=attempt.driver,
        heartbeat=now,
        retry=replace(
            retry,
            left=retry.left - 1,
            earlier=(*retry.earlier, attempt.attempt),
            failed_at=retry.failed_at if never_started(attempt) else _with_last(retry.failed_at, attempt.destination),
            not_before=now + wait,
            since=retry.since or attempt.created_at,
            choose=retry.anywhere,
            next="",
        ),
        asked=attempt.asked,
    )


def _with_last(hosts: tuple[str, ...], host: str) -> tuple[str, ...]:
    return (*(one for one in hosts if one != host), host)


def wait_seconds(tries: int, fraction: float) -> float:
    """Return how long to wait after so many earlier tries."""
    longest = min(FIRST_WAIT * 2.0**tries, LONGEST_WAIT)
    return longest * (0.5 + fraction / 2)


def wait_left(not_before: float, now: float) -> float:
    """Return how many seconds of a wait are left; one that ends far later than any was given by a clock that is off."""
    left = not_before - now
    return left if 0.0 < left <= LONGEST_WAIT + CLOCKS_APART else 0.0


async def settled_destination(around: Surroundings, attempt: Attempt) -> Attempt:
    """Return a retry with its destination, asked of all hosts where any will do; where none passes, it keeps its own.

    Raises:
        MigrationError: The machine's host failed otherwise than by not answering.
    """
    chosen, agents = None, around.agents
    if attempt.retry.choose:
        choice = await asyncio.to_thread(choice_now, around.store, agents.hosts, attempt.retry.among)
        machine = MachineStatus(machine=attempt.machine, name=attempt.name, host=attempt.source)
        beside = Beside(choice.excluded, choice.taking, choice.sending, attempt.retry.failed_at, around.known)
        found = await find_destination(agents, machine, attempt.policy, beside, by_host=attempt.asked.by_host)
        require_choosable(found)
        chosen = found.chosen
    destination = attempt.destination if chosen is None else chosen.host
    configured = agents.hosts[destination].transport if destination in agents.hosts else None
    return replace(
        attempt,
        destination=destination,
        policy=policy_to(attempt.policy, configured, by_host=attempt.asked.by_host),
        retry=replace(attempt.retry, choose=False),
    )


def _latest(attempt: Attempt) -> float:
    """Return when the last retry may begin, in seconds since 1970."""
    since, tries = attempt.retry.since or attempt.created_at, len(attempt.retry.earlier) + 1
    each = attempt.policy.timeout_ms / 1000 + _PREPARE_ALLOWANCE + LONGEST_WAIT
    return since + (tries + attempt.retry.left) * each
