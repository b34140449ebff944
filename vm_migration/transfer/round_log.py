"""The closed rounds of an attempt in bounded memory: all that decisions look at, and what reports tell.

An attempt of ten minutes may have tens of thousands of rounds, each report of it is whole, and each is written down. So
two things are kept: the last rounds, for the decision to stop, and a thinned list for reports.

::

    closed   0 1 2 3 4 5 6 7 8 9 10
    told     0       4       8   10      the first, every k-th, the last; k is the least power of two at which they fit
"""

from dataclasses import dataclass, replace
from typing import Final

from vm_migration.transfer.convergence import RoundMeasurement

MOST_RECENT: Final = 256
"""As many as `vm_migration.transfer.convergence` looks at."""
MOST_TOLD: Final = 256


@dataclass(frozen=True, slots=True)
class TimedRound:
    """A closed round, and where it stands among the others."""

    measured: RoundMeasurement
    ended_ms: float
    """Since the first round began; time between rounds, as while hooks run before the last, is left out."""


@dataclass(frozen=True, slots=True)
class RoundLog:
    """Rounds closed so far, oldest first."""

    closed: int = 0
    """All of them, also those that are no longer held."""
    recent: tuple[RoundMeasurement, ...] = ()
    """The last, at most MOST_RECENT."""
    every: tuple[TimedRound, ...] = ()
    """The first, and each whose place is a multiple of the stride; fewer than MOST_TOLD."""
    stride: int = 1
    last: TimedRound | None = None

    @property
    def told(self) -> tuple[TimedRound, ...]:
        """What reports hold: the first, every stride-th and the last; at most MOST_TOLD."""
        if self.last is None or self.every[-1] is self.last:
            return self.every
        return (*self.every, self.last)

    def closing(self, measured: RoundMeasurement) -> "RoundLog":
        """Return the log with one more round."""
        ended_ms = measured.ms if self.last is None else self.last.ended_ms + measured.ms
        timed = TimedRound(measured, ended_ms)
        log = replace(
            self,
            closed=self.closed + 1,
            recent=(*self.recent[-(MOST_RECENT - 1) :], measured),
            last=timed,
        )
        if self.closed % self.stride:
            return log
        every = (*self.every, timed)
        if len(every) < MOST_TOLD:
            return replace(log, every=every)
        return replace(log, every=every[::2], stride=2 * self.stride)
