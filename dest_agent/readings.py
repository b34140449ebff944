"""What a destination agent's gauges say of what is arriving; pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from vm_migration.handover.custody import Custody
from vm_migration.handover.states import ARRIVING
from vm_migration.telemetry import gauges
from vm_migration.telemetry.gauges import Reading
from vmm.memory.quantities import PAGE_SIZE


class Arrival(Protocol):
    """What is read of an arrival: dest_agent.incoming_attempt.IncomingAttempt."""

    @property
    def custody(self) -> Custody:
        """The machine in this agent's hands."""

    @property
    def stale_pages(self) -> int:
        """How many announced pages have not come."""


_STATES: Final = tuple(sorted(state.value for state in ARRIVING))


def arrival_readings(arriving: Iterable[Arrival]) -> Sequence[Reading]:
    """Return how many machines are arriving, by state, and what has not come of each."""
    found, states = [], Counter[str]()
    for one in arriving:
        record = one.custody.record
        states[record.state.value] += 1
        stale = one.stale_pages * PAGE_SIZE
        found.append(Reading(gauges.ARRIVAL_STALE, stale, (record.machine, record.attempt or "")))
    return (*(Reading(gauges.ARRIVALS, states[state], (state,)) for state in _STATES), *found)
