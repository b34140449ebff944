"""What the orchestrator's metrics say of its store: gauges that are read of it, and ends that are counted as they come.

An attempt's end is observed again with what follows it, such as a hook's warning: it counts once.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from orchestrator.attempt import ENDS, Attempt, Outcome, Phase
from orchestrator.store.store import Store
from vm_migration.telemetry import counts, distributions, gauges
from vm_migration.telemetry.gauges import Read, Reading

MOST_BACKLOG: Final = 10_000
_REMEMBERED: Final = 4096
"""Attempts whose last phase is known: more than may be open, or end at once."""
_OPEN: Final = tuple(phase for phase in Phase if phase not in ENDS)


class Leads(Protocol):
    """Knows whether this orchestrator drives: orchestrator.leading.Leading."""

    @property
    def leads(self) -> bool:
        """Whether it does at this moment."""


def store_readings(store: Store, driver: str, leading: Leads) -> Read:
    """Return what reads the gauges of a driver and its store, which others may share."""

    async def read() -> Sequence[Reading]:
        attempts = await asyncio.to_thread(store.attempts)
        backlog = await asyncio.to_thread(store.pending, driver, MOST_BACKLOG)
        own = Reading(gauges.LEADS, leading.leads), Reading(gauges.OUTBOX, len(backlog))
        return (*attempt_readings(attempts), *own)

    return read


def attempt_readings(attempts: Iterable[Attempt]) -> Sequence[Reading]:
    """Return how many open attempts there are, by phase, and how many are unresolved. Pure."""
    phases, unresolved = Counter[Phase](), 0
    for one in attempts:
        phases[one.phase] += 1
        unresolved += one.outcome is Outcome.UNRESOLVED
    return (
        Reading(gauges.QUEUE_LENGTH, phases[Phase.QUEUED]),
        Reading(gauges.UNRESOLVED, unresolved),
        *(Reading(gauges.ATTEMPTS_IN_PHASE, phases[phase], (phase.value,)) for phase in _OPEN),
    )


class Transitions:
    """Counts the phases and ends of attempts as they are observed."""

    def __init__(self) -> None:
        self._phases: Final[OrderedDict[str, Phase]] = OrderedDict()

    def note(self, attempt: Attempt) -> None:
        """Note an attempt as it stands; what was noted of it already counts no more."""
        before = self._phases.get(attempt.attempt)
        if before == attempt.phase:
            return
        self._phases[attempt.attempt] = attempt.phase
        self._phases.move_to_end(attempt.attempt)
        while len(self._phases) > _REMEMBERED:
            self._phases.popitem(last=False)
        elapsed = max(0.0, attempt.updated_at - attempt.created_at)
        distributions.PHASE_TRANSITION.add(elapsed, attempt.phase.value)
        if attempt.ended and attempt.outcome is not None:
            counts.ATTEMPTS_ENDED.add(attempt.outcome.value)
