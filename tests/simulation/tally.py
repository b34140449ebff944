"""What came of many schedules: how they ended, which faults struck where, and which rules were broken."""

import gc
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.simulation.faults import KINDS, STATES, Kind
from tests.simulation.schedule import Seen, run
from tests.simulation.world import Line
from vm_migration.handover.states import State

PAIRS: Final = len(KINDS) * len(STATES)
"""Seeds after which every kind of fault has been aimed at every state of the handover once."""
_SHOWN_LINES: Final = 400


@dataclass
class Failure:
    """A schedule that broke a rule."""

    seed: int
    rule: str
    text: str
    trace: str
    faults: str

    def __str__(self) -> str:
        again = f"python -m tests.simulation --replay {self.seed}"
        return f"{self.trace}\n\nseed {self.seed}: {self.text}\nfaults: {self.faults}\nagain: {again}"


@dataclass
class Tally:
    """Counts of many schedules."""

    schedules: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    weathered: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    steps: int = 0
    guest_starts: int = 0
    rolled_back: int = 0

    def add(self, seen: Seen) -> None:
        """Count one schedule."""
        self.schedules += 1
        self.steps += seen.steps
        self.guest_starts += seen.runs
        self.rolled_back += seen.rolled_back
        self.hits.update(seen.hits)
        self.weathered.update(seen.weathered)
        self.outcomes.update(seen.outcomes)
        self.endings[seen.rule or seen.ending] += 1
        if seen.failure:
            faults = "; ".join(map(str, seen.plan.faults))
            self.failures.append(Failure(seen.plan.seed, seen.rule, seen.failure, trace_text(seen.trace), faults))

    def merge(self, other: "Tally") -> None:
        """Add what another process counted."""
        self.schedules += other.schedules
        self.steps += other.steps
        self.guest_starts += other.guest_starts
        self.rolled_back += other.rolled_back
        for own, added in (
            (self.endings, other.endings), (self.weathered, other.weathered), (self.outcomes, other.outcomes),
        ):  # fmt: skip
            own.update(added)
        self.hits.update(other.hits)
        self.failures.extend(other.failures)

    def never_hit(self) -> list[tuple[State, Kind]]:
        """Return the pairs of a state and a fault that no schedule brought together."""
        return [(state, kind) for state in STATES for kind in KINDS if not self.hits[state, kind]]


def leave_imports_alone() -> None:
    """Keep what a process has imported out of the collector's way: agents have it collect after a failed attempt.

    For processes that run schedules and nothing else: what lives now is never looked at again.
    """
    gc.collect()
    gc.freeze()


def tally(seeds: Iterable[int]) -> Tally:
    """Run the schedules of some seeds in this process."""
    counted = Tally()
    for seed in seeds:
        counted.add(run(seed))
    return counted


def trace_text(lines: list[Line]) -> str:
    """Return a trace to be read: repeated lines once, with how often they came."""
    shown: list[str] = []
    last: tuple[str, str] | None = None
    again = 0
    for line in lines:
        if (line.who, line.what) == last and line.what.startswith(("warning", "attempt")):
            again += 1
            continue
        if again:
            shown.append(f"{'':29s}... and {again} times more")
        last, again = (line.who, line.what), 0
        shown.append(str(line)[:240])
    if len(shown) > _SHOWN_LINES:
        half = _SHOWN_LINES // 2
        shown = [*shown[:half], f"... {len(shown) - _SHOWN_LINES} lines ...", *shown[-half:]]
    return "\n".join(shown)
