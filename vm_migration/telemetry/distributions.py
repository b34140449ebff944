"""How long things took since this process started, as histograms."""

import bisect
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from vm_migration.telemetry.daemons import EVERY, Daemon


@dataclass(frozen=True, slots=True)
class Distributed:
    """How many values were at most each bound, all of them last, and their sum."""

    up_to: tuple[int, ...]
    total: float


class Distribution:
    """How often a value fell between which bounds, apart by the values of its labels, of which there must be few."""

    def __init__(
        self, name: str, about: str, *labels: str, bounds: Sequence[float], of: tuple[Daemon, ...] = EVERY
    ) -> None:
        """Name it as Prometheus does, with its unit; `bounds` ascend, and what is above the last one has its own."""
        self.name: Final = name
        self.about: Final = about
        self.labels: Final = labels
        self.bounds: Final = tuple(bounds)
        self.of: Final = of
        self._fell: Final[dict[tuple[str, ...], list[int]]] = {}
        self._totals: Final[dict[tuple[str, ...], float]] = {}
        self._lock: Final = threading.Lock()

    def add(self, value: float, *labels: str) -> None:
        """Note one value, from any thread; the labels' values in their order."""
        with self._lock:
            fell = self._fell.setdefault(labels, [0] * (len(self.bounds) + 1))
            fell[bisect.bisect_left(self.bounds, value)] += 1
            self._totals[labels] = self._totals.get(labels, 0.0) + value

    def read(self) -> Mapping[tuple[str, ...], Distributed]:
        """Return what was noted, by the labels' values."""
        with self._lock:
            return {
                labels: Distributed(tuple(accumulate(fell)), self._totals[labels])
                for labels, fell in self._fell.items()
            }


DOWNTIME: Final = Distribution(
    "viaduct_migration_downtime_seconds",
    "How long the guest stood still, of attempts that completed",
    bounds=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0),
    of=(Daemon.SOURCE,),
)
DURATION: Final = Distribution(
    "viaduct_migration_duration_seconds",
    "From Begin to the end of an attempt, by outcome",
    "outcome",
    bounds=(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 150.0, 300.0, 900.0, 3600.0),
    of=(Daemon.SOURCE,),
)
UPDATE_DOWNTIME: Final = Distribution(
    "viaduct_update_downtime_seconds",
    "How long the guest stood still, of updates that completed",
    "mode",
    bounds=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    of=(Daemon.SOURCE,),
)
PHASE_TRANSITION: Final = Distribution(
    "viaduct_attempt_phase_transition_time_from_creation_seconds",
    "From an attempt's entry into the store to each phase, waiting for its turn included",
    "phase",
    bounds=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
    of=(Daemon.ORCHESTRATOR,),
)
ALL: Final = (DOWNTIME, DURATION, UPDATE_DOWNTIME, PHASE_TRANSITION)
