"""What the orchestrator's metrics say of its store: gauges that are read of it, and ends that are counted as they come.

An attempt's end is observed again with what follows it, such as a hook's warning: it counts once.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from orchestrator.attempt import ENDS, Attempt, Outcome, Phase
from orchestrator.evacuation.kept import KeptEvacuations
from orchestrator.evacuation.plan import Evacuation, Kind, Move
from orchestrator.maintenance import in_maintenance
from orchestrator.store.store import Store
from vm_migration.telemetry import counts, distributions, gauges
from vm_migration.telemetry.gauges import Read, Reading

MOST_BACKLOG: Final = 10_000
_REMEMBERED: Final = 4096
"""Attempts whose last phase is known: more than may be open, or end at once."""
_WAITING: Final = "waiting"
_MOVING: Final = "moving"
_STATES: Final = (_WAITING, _MOVING, *(outcome.value for outcome in Outcome))
_OPEN: Final = tuple(phase for phase in Phase if phase not in ENDS)


class Leads(Protocol):
    """Knows whether this orchestrator drives: orchestrator.leading.Leading."""

    @property
    def leads(self) -> bool:
        """Whether it does at this moment."""


def store_readings(store: Store, driver: str, leading: Leads) -> Read:
    """Return what reads the gauges of a driver, and those of its store, which others may share, while it leads."""

    async def read() -> Sequence[Reading]:
        backlog = await asyncio.to_thread(store.pending, driver, MOST_BACKLOG)
        own = Reading(gauges.LEADS, leading.leads), Reading(gauges.OUTBOX, len(backlog))
        return (*own, *(await asyncio.to_thread(_of_all, store) if leading.leads else ()))

    return read


def _of_all(store: Store) -> Sequence[Reading]:
    """Return what is true of the store, whoever reads it. Blocks."""
    plans = KeptEvacuations(store.entries).all(everything=False)
    maintenance = Reading(gauges.MAINTENANCE, len(in_maintenance(store.entries)))
    return (*attempt_readings(store.open_rows()), *evacuation_readings(plans), maintenance)


class Standing(Protocol):
    """What is counted of an attempt."""

    @property
    def phase(self) -> Phase:
        """Where it stands."""

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, or was left."""


def attempt_readings(attempts: Iterable[Standing]) -> Sequence[Reading]:
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


def evacuation_readings(plans: Iterable[Evacuation]) -> Sequence[Reading]:
    """Return how many open evacuations there are, and how the machines of each stand. Pure."""
    listed, found = list(plans), list[Reading]()
    kinds = Counter(one.kind for one in listed)
    for (host, kind), plan in {(one.host, one.kind.value): one for one in listed}.items():
        states = Counter(_state(one) for one in plan.moves)
        found += [Reading(gauges.EVACUATION_MACHINES, states[one], (host, kind, one)) for one in _STATES]
        found.append(Reading(gauges.EVACUATION_DONE, plan.done, (host, kind)))
    return (*(Reading(gauges.EVACUATIONS, kinds[one], (one.value,)) for one in Kind), *found)


def _state(move: Move) -> str:
    if move.outcome is not None:
        return move.outcome.value
    return _WAITING if move.waiting else _MOVING


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
