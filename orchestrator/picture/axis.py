"""Scales from a quantity to a place, and round numbers to mark them with. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

_MINUTE: Final = 60_000.0
_DIGITS: Final = (1, 2, 5)
_SHORTEST: Final = -3
_LONGEST: Final = 3
"""Powers of ten, in milliseconds, up to which time is marked in tens: seconds; above, sixty count."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale from 0 to `high`, drawn from `start` to `end`; what lies outside is drawn at its end."""

    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the place of a value."""
        share = min(max(value / self.high, 0.0), 1.0) if self.high > 0 else 0.0
        return self.start + share * (self.end - self.start)


def byte_ticks(high: float, most: int) -> tuple[float, ...]:
    """Return at most `most` + 1 even marks from 0 to `high`, for bytes: multiples of a power of two."""
    return _ticks(high, most, (float(1 << power) for power in count()))


def time_ticks(high: float, most: int) -> tuple[float, ...]:
    """Return at most `most` + 1 even marks from 0 to `high`, for milliseconds."""
    return _ticks(high, most, _time_steps())


def _ticks(high: float, most: int, steps: Iterator[float]) -> tuple[float, ...]:
    """Take the smallest step that needs no more marks than are wanted."""
    step = next(step for step in steps if high <= step * most)
    return tuple(step * number for number in range(int(high / step + 1e-9) + 1))


def _time_steps() -> Iterator[float]:
    for power in range(_SHORTEST, _LONGEST + 1):
        yield from (digit * 10.0**power for digit in _DIGITS)
    yield from (10_000.0, 20_000.0, 30_000.0)
    for power in count():
        yield from (digit * 10**power * _MINUTE for digit in _DIGITS)
