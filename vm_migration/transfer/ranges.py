"""A figure and the bounds within which it is believed to lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Self

_RECENT: Final = 3
"""Samples that say what is likely; all of them say what is possible."""
_MARGIN: Final = 0.1
_MARGIN_OF_ONE: Final = 0.2
"""By which the bounds are widened beyond what was seen: a little always, and more where it was seen seldom."""


@dataclass(frozen=True, slots=True)
class Range:
    """Three figures in ascending order, none below nought; where nothing is in doubt they are one."""

    low: float
    likely: float
    high: float

    def __post_init__(self) -> None:
        """Refuse what is no range.

        Raises:
            ValueError: The figures do not ascend, or are below nought.
        """
        if not 0 <= self.low <= self.likely <= self.high:
            raise ValueError(f"No range: {self.low}, {self.likely}, {self.high}")

    @classmethod
    def exactly(cls, figure: float) -> Self:
        """Return the range of what is known."""
        return cls(figure, figure, figure)

    @classmethod
    def around(cls, figure: float, share: float) -> Self:
        """Return the range of what may be off by a share, from 0 to 1, of itself."""
        return cls(figure * (1 - share), figure, figure * (1 + share))

    @classmethod
    def of_samples(cls, samples: Sequence[float]) -> Self:
        """Return what samples, oldest first, say of the next one.

        Likely is the median of the last three; the bounds are the extremes, and a margin that one sample alone makes
        three times as wide as many do.

        Raises:
            ValueError: There are none.
        """
        if not samples:
            raise ValueError("No samples")
        margin = _MARGIN + _MARGIN_OF_ONE / len(samples)
        return cls(min(samples) * (1 - margin), median(samples[-_RECENT:]), max(samples) * (1 + margin))

    def at_most(self, bound: "Range") -> "Range":
        """Return the range of what cannot exceed something that is itself known only within a range."""
        return Range(min(self.low, bound.low), min(self.likely, bound.likely), min(self.high, bound.high))

    def product(self, other: "Range") -> "Range":
        """Return the range of one figure times another."""
        return Range(self.low * other.low, self.likely * other.likely, self.high * other.high)

    def plus(self, figure: float) -> "Range":
        """Return the range of so much more."""
        return Range(self.low + figure, self.likely + figure, self.high + figure)
