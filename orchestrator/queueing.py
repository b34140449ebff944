"""Which waiting attempts may start: a pure decision over those that wait and those that run.

A host sends at most OUT_LIMIT machines at once and takes at most IN_LIMIT. Higher priority goes first, then who waits
longest; one that cannot start does not hold up others between other hosts.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from orchestrator.attempt import Attempt

OUT_LIMIT: Final = 1
IN_LIMIT: Final = 1


def may_start(waiting: Iterable[Attempt], running: Iterable[Attempt]) -> Sequence[Attempt]:
    """Return those that may start now, in order."""
    active = list(running)
    outgoing = Counter(one.source for one in active)
    incoming = Counter(one.destination for one in active)
    chosen = []
    for attempt in sorted(waiting, key=lambda one: (-one.priority, one.created_at, one.attempt)):
        if outgoing[attempt.source] < OUT_LIMIT and incoming[attempt.destination] < IN_LIMIT:
            outgoing[attempt.source] += 1
            incoming[attempt.destination] += 1
            chosen.append(attempt)
    return chosen


def waits_for(attempt: Attempt, running: Iterable[Attempt]) -> str:
    """Return what a waiting attempt waits for, for people."""
    active = list(running)
    busy = []
    if sum(one.source == attempt.source for one in active) >= OUT_LIMIT:
        busy.append(f"{attempt.source} sends another machine")
    if sum(one.destination == attempt.destination for one in active) >= IN_LIMIT:
        busy.append(f"{attempt.destination} takes another machine in")
    return f"waits for its turn: {' and '.join(busy)}" if busy else "waits for its turn"
