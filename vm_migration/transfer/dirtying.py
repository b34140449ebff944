"""How many distinct bytes a machine has dirtied after a time: as measured up to the window, by a law beyond it.

Distinct pages do not grow with time for ever: what is written twice counts once. A single rate says too much of long
rounds and too little of short ones. So the writes of a window are harvested in slices, and slices that follow each
other are joined to windows of an eighth, a quarter, a half and the whole. Up to the whole the curve through those is
taken as it is (its least concave majorant: a load that does not change adds no more in later moments than in earlier
ones, and what bends upward is noise). Beyond it three laws bound what cannot be seen:

::

    likely   S - (S - b) e^(-k t)   through the half and the whole, a and b: writes at random to a working set S have
                                    this curve; e^(-k T/2) = (b - a) / a, S = a^2 / (2 a - b); straight where b = 2 a
    high     straight on, as steep as the last half was: no concave curve is above it
    low      as likely, less what the slices differ by

None exceeds the span, where the machine's makers know one, or what was seen. With figures of the guest alone, the rate
is taken to hold up to the span.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

LEAST_SPREAD: Final = 0.1
"""What a window of a second does not show: the next second is not the same."""
_MOST_SPREAD: Final = 0.9
UNMEASURED_SPREAD: Final = 0.4
"""By how much the guest's own figures may be off."""
_STRAIGHT: Final = 1e-6

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Growth:
    """Distinct bytes over milliseconds: concave, from nought, never falling."""

    points: tuple[Point, ...]
    """(ms, bytes), ascending, not from nought, concave."""
    later_bytes_per_ms: float
    """How steep it is past the last point."""
    later_bytes: float
    """What it comes to there in the end; infinite where it goes on straight."""
    span_bytes: float

    @classmethod
    def steady(cls, bytes_per_s: float, span_bytes: float) -> Self:
        """Return the growth at one rate up to the span."""
        return cls((), bytes_per_s / 1000, math.inf, span_bytes)

    def after(self, ms: float) -> float:
        """Return the distinct bytes that are dirty after so many milliseconds."""
        before: Point = (0.0, 0.0)
        for point in self.points:
            if ms <= point[0]:
                share = (ms - before[0]) / (point[0] - before[0])
                return min(before[1] + share * (point[1] - before[1]), self.span_bytes)
            before = point
        return min(before[1] + self._later(ms - before[0], before[1]), self.span_bytes)

    def scaled(self, factor: float) -> "Growth":
        """Return the growth of a load so many times as heavy, within the same span or, if lighter, a smaller one."""
        points = tuple((ms, count * factor) for ms, count in self.points)
        span = self.span_bytes * min(factor, 1.0)
        return Growth(points, self.later_bytes_per_ms * factor, self.later_bytes * factor, span)

    def slowed(self, factor: float) -> "Growth":
        """Return the growth of a load that does the same in a longer time, `factor` times as fast; not 0."""
        points = tuple((ms / factor, count) for ms, count in self.points)
        return Growth(points, self.later_bytes_per_ms * factor, self.later_bytes, self.span_bytes)

    def _later(self, ms: float, reached: float) -> float:
        room = self.later_bytes - reached
        if self.later_bytes_per_ms <= 0 or room <= 0:
            return 0.0
        if math.isinf(room):
            return self.later_bytes_per_ms * ms
        return -room * math.expm1(-self.later_bytes_per_ms * ms / room)


@dataclass(frozen=True, slots=True)
class Dirtying:
    """What a machine dirties, and the bounds of that; each lies nowhere below the one before."""

    low: Growth
    likely: Growth
    high: Growth
    bytes_per_s: float
    """Over the whole window, or as the guest says."""

    @classmethod
    def told(cls, bytes_per_s: float, span_bytes: float) -> Self:
        """Return what the guest's own figure says, where nothing was measured."""
        likely = Growth.steady(bytes_per_s, span_bytes)
        return cls(likely.scaled(1 - UNMEASURED_SPREAD), likely, likely.scaled(1 + UNMEASURED_SPREAD), bytes_per_s)

    def slowed(self, factor: float) -> "Dirtying":
        """Return what a machine dirties that does everything `factor` times as fast; not 0."""
        return Dirtying(
            self.low.slowed(factor), self.likely.slowed(factor), self.high.slowed(factor), self.bytes_per_s * factor
        )

    @classmethod
    def none(cls) -> Self:
        """Return what a machine dirties that stands still."""
        still = Growth.steady(0.0, 0.0)
        return cls(still, still, still, 0.0)


def measured(window_ms: float, windows: Sequence[Sequence[float]], span_bytes: float) -> Dirtying:
    """Return what the windows of a measurement say.

    Args:
        window_ms: How long the whole took.
        windows: Distinct bytes of each window: of the shortest ones first, each line half as many, of twice the
            length, and in the last line the whole.
        span_bytes: The most that guest and devices dirty however long it takes, as far as that is known.

    Raises:
        ValueError: The lines are not halves of each other, or fewer than two.
    """
    if len(windows) < 2 or any(len(line) != 1 << at for at, line in enumerate(reversed(windows))):
        raise ValueError(f"Windows of {[len(line) for line in windows]} do not halve down to one")
    points = [(window_ms / len(line), sum(line) / len(line)) for line in windows]
    whole = points[-1][1]
    if whole <= 0:
        return Dirtying.none()
    span, hull = max(span_bytes, whole), concave(points)
    half = Growth(hull, 0.0, whole, whole).after(window_ms / 2)
    steep = (whole - half) / (window_ms / 2)
    slope, most = _law(window_ms, half, whole)
    spread = spread_of(windows)
    likely = Growth(hull, slope, most, span)
    high = Growth(hull, steep, math.inf, span).scaled(1 + spread)
    return Dirtying(likely.scaled(1 - spread), likely, high, whole * 1000 / window_ms)


def concave(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the corners of the least concave curve from nought that is nowhere below the points."""
    hull: list[Point] = [(0.0, 0.0)]
    for point in points:
        while len(hull) > 1 and _steepness(hull[-2], hull[-1]) <= _steepness(hull[-1], point):
            hull.pop()
        hull.append(point)
    return tuple(hull[1:])


def spread_of(windows: Sequence[Sequence[float]]) -> float:
    """Return by what share of their mean the quarters of a window, or its halves, lie apart, to either side."""
    line = next((each for each in windows if len(each) <= 4), windows[-1])
    mean = sum(line) / len(line)
    apart = (max(line) - min(line)) / (2 * mean) if mean > 0 else 0.0
    return min(max(apart, LEAST_SPREAD), _MOST_SPREAD)


def _law(window_ms: float, half: float, whole: float) -> tuple[float, float]:
    """Return how steep the law is at the window's end, in bytes a millisecond, and what it comes to in the end."""
    grows = (whole - half) / half if half > 0 else 1.0
    if grows >= 1 - _STRAIGHT:
        return (whole - half) / (window_ms / 2), math.inf
    if grows <= _STRAIGHT:
        return 0.0, whole
    most = half / (1 - grows)
    return -math.log(grows) * 2 / window_ms * (most - whole), most


def _steepness(one: Point, other: Point) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])
