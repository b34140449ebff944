"""How a figure of the table is read out of a run's samples. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Literal

from benchmarks.beside.prediction import Prediction, within
from benchmarks.beside.sample import Sample

Figure = Callable[[Sample], float]
Better = Literal["lower", "higher"]

NONE: Final = math.inf
"""Nothing must be reached."""
NOT_MEASURED: Final = "not measured"
NOT_OFFERED: Final = "not offered"
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured: the samples of each scenario that was played, and what became of predictions."""

    scenarios: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    predictions: Sequence[Prediction] = ()

    def of(self, name: str) -> Sequence[Sample]:
        """Return a scenario's samples; none where it was not played."""
        return self.scenarios.get(name, ())


@dataclass(frozen=True, slots=True)
class Reading:
    """A row's values, one a turn, and what is to be said beside them; `settled` where no value has to be judged."""

    values: tuple[float, ...] = ()
    words: str = ""
    settled: bool | None = None


Read = Callable[[Run], Reading]


@dataclass(frozen=True, slots=True)
class Measure:
    """One row: what it is held against, and how it is read out of a run."""

    scenario: str
    beside: str
    must: float
    aim: float
    read: Read
    unit: str = "x"
    better: Better = "lower"
    worst: bool = False
    """Whether the worst value counts, and not the median."""

    def judged(self, reading: Reading) -> float | None:
        """Return the value that is held against `must` and `aim`; None where there is none."""
        if not reading.values:
            return None
        if not self.worst:
            return median(reading.values)
        return max(reading.values) if self.better == "lower" else min(reading.values)

    def reached(self, reading: Reading) -> bool | None:
        """Tell whether it is what it must be; None where nothing was measured."""
        if reading.settled is not None:
            return reading.settled
        value = self.judged(reading)
        return None if value is None else self.must == NONE or self._meets(value, self.must)

    def verdict(self, reading: Reading) -> str:
        """Return `aim reached`, `reached`, `MISSED`, or in words why there is nothing to judge."""
        reached, value = self.reached(reading), self.judged(reading)
        if reached is None:
            return reading.words or NOT_MEASURED
        if reached and value is not None and self._meets(value, self.aim):
            return "aim reached"
        if reached and self.must == NONE:
            return "aim missed"
        return "reached" if reached else "MISSED"

    def _meets(self, value: float, bound: float) -> bool:
        return value <= bound if self.better == "lower" else value >= bound


def total(sample: Sample) -> float:
    """Return milliseconds without getting ready."""
    return sample.total_ms


def whole(sample: Sample) -> float:
    """Return milliseconds with it."""
    return sample.total_ms + sample.ready_ms


def downtime(sample: Sample) -> float:
    """Return milliseconds from the guest's stop to its start."""
    return sample.downtime_ms


def bytes_per_s(sample: Sample) -> float:
    """Return what a stream carries: of a movement from its first bulk frame to the last acknowledgement."""
    return sample.bytes_per_s or (1000 * sample.wire_bytes / sample.bulk_ms if sample.bulk_ms else 0.0)


def cpu_per_gib(sample: Sample) -> float:
    """Return processor seconds of both ends for each GiB on the wire."""
    return sample.cpu_seconds * _GIB / sample.wire_bytes if sample.wire_bytes else 0.0


def agent_mib(sample: Sample) -> float:
    """Return the most anonymous memory that one agent held, in MiB."""
    return sample.agent_bytes / (1 << 20)


def completed(samples: Sequence[Sample], who: str) -> dict[int, Sample]:
    """Return somebody's movements that count, by turn: turn 0 warms the machine's memory up."""
    return {each.turn: each for each in counted(samples, who) if each.outcome == "completed"}


def counted(samples: Sequence[Sample], who: str) -> list[Sample]:
    """Return what somebody tried in the turns that count."""
    return [each for each in samples if each.who == who and each.turn]


def unfit(run: Run, name: str, who: str) -> Reading | None:
    """Return what to say where somebody's movements of a scenario cannot all be compared; None where they can."""
    tried = counted(run.of(name), who)
    if not tried:
        return Reading(words=NOT_MEASURED)
    if all(each.outcome == "not offered" for each in tried):
        return Reading(words=NOT_OFFERED)
    bad = [each for each in tried if each.outcome != "completed" or each.mismatched_pages]
    if bad:
        return Reading(words=f"{len(bad)} of {len(tried)}: {bad[0].outcome} {bad[0].why}".strip(), settled=False)
    return None


def beside(
    name: str, who: str, peers: Sequence[str], ours: Figure, theirs: Figure | None = None, *, better: Better = "lower"
) -> Read:
    """Return a reader of `ours` over the same turn's figure of the peer whose median is the best.

    Where no peer completed and we did, that settles it.
    """
    figure = theirs or ours

    def read(run: Run) -> Reading:
        said = unfit(run, name, who)
        if said is not None:
            return said
        mine = completed(run.of(name), who)
        others = {peer: found for peer in peers if (found := completed(run.of(name), peer))}
        if not others:
            tried = [each for peer in peers for each in counted(run.of(name), peer)]
            slow = bool(tried) and all(each.outcome == "did not complete" for each in tried)
            return Reading(words="completes where the other does not", settled=True) if slow else Reading()
        pick = min if better == "lower" else max
        best = pick(others, key=lambda peer: median(map(figure, others[peer].values())))
        turns = sorted(mine.keys() & others[best].keys())
        values = tuple(ours(mine[turn]) / figure(others[best][turn]) for turn in turns)
        return Reading(values, f"{median(map(ours, mine.values())):.3g} beside {best}")

    return read


def own(names: Sequence[str], who: str, figure: Figure) -> Read:
    """Return a reader of somebody's own figure over all movements of some scenarios."""

    def read(run: Run) -> Reading:
        for name in names:
            said = unfit(run, name, who)
            if said is not None:
                return said
        return Reading(tuple(figure(each) for name in names for each in completed(run.of(name), who).values()))

    return read


def share_within(name: str, who: str, limit_ms: float) -> Read:
    """Return a reader of the share of runs that completed with a downtime of at most that; failed ones did not."""

    def read(run: Run) -> Reading:
        tried = counted(run.of(name), who)
        said = unfit(run, name, who)
        if said is not None and said.settled is None:
            return said
        good = sum(each.outcome == "completed" and each.downtime_ms <= limit_ms for each in tried)
        return Reading((good / len(tried),), f"{good} of {len(tried)}")

    return read


def predicted(figure: Literal["total", "downtime"], tolerance: float, runs: int) -> Read:
    """Return a reader of how many of so many predictions came true; fewer runs than that are no measurement."""

    def read(run: Run) -> Reading:
        if len(run.predictions) < runs:
            return Reading(words=NOT_MEASURED)
        good = sum(within(one, figure, tolerance) for one in run.predictions)
        return Reading((float(good),), f"{good} of {len(run.predictions)}")

    return read
