"""How fast a guest may go, and how fast it went; time is passed in as nanoseconds of one monotonic clock."""

from typing import Final

SECOND: Final = 1_000_000_000
NEVER: Final = (1 << 63) - 1
"""A moment that does not come."""
BATCH_NS: Final = 5_000_000
"""How often a driver gives its device work."""
_CATCH_UP: Final = 50_000_000


class Pacer:
    """A token bucket: units (pages, bytes) per second, saved up for at most 50 ms, or until one is whole.

    A process that stood still therefore catches up by no more than 50 ms worth and never bursts. Whoever spends more
    than is due owes it: the balance may be negative.
    """

    __slots__ = ("_balance", "_last", "_most", "rate")

    def __init__(self, rate: int) -> None:
        self.rate: Final = rate
        self._most: Final = max(rate * _CATCH_UP, SECOND)
        self._balance = 0  # in units x nanoseconds, so that nothing is lost to rounding
        self._last: int | None = None

    def restart(self) -> None:
        """Begin anew at the next moment asked about; nothing is saved up, debts are kept."""
        self._last = None
        self._balance = min(0, self._balance)

    def due(self, now_ns: int) -> int:
        """Return how many units may be spent at a moment; negative while they are owed."""
        if self._last is None or now_ns < self._last:  # a fresh start, or another host's clock
            self._last = now_ns
        self._balance = min(self._balance + self.rate * (now_ns - self._last), self._most)
        self._last = now_ns
        return self._balance // SECOND

    def spend(self, units: int) -> None:
        """Take units out of the bucket."""
        self._balance -= units * SECOND

    def moment_of(self, units: int) -> int:
        """Return when so many units will be due, at most as many as can be saved up; after `due` was asked."""
        if self.rate == 0 or self._last is None:
            return NEVER
        wanted = min(units * SECOND, self._most)
        return self._last + max(0, -((self._balance - wanted) // self.rate))

    def after_batch(self, now_ns: int, most: int, *, refused: bool) -> int:
        """Return when BATCH_NS worth of units will be due, but at most `most`; after `due` was asked.

        Where nothing of what is due could be spent (`refused`: no IOVA is left at this moment), that is BATCH_NS later.
        """
        if refused:
            return now_ns + BATCH_NS
        return self.moment_of(max(1, min(most, self.rate * BATCH_NS // SECOND)))


class RateMeter:
    """Achieved units per second, over windows of one second."""

    __slots__ = ("_count", "_rate", "_start")

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._count, self._rate, self._start = 0, -1.0, -1

    def count(self, units: int) -> None:
        """Add units to the present window."""
        self._count += units

    def advance(self, now_ns: int) -> bool:
        """Close the window when a second has passed; returns whether it did."""
        if not 0 <= self._start <= now_ns:
            self._count, self._start = 0, now_ns
        elapsed = now_ns - self._start
        if elapsed < SECOND:
            return False
        self._rate = self._count * SECOND / elapsed
        self._count, self._start = 0, now_ns
        return True

    def rate(self, now_ns: int) -> float:
        """Return the last whole window's rate; before there is one, that of the time until now."""
        if self._rate >= 0:
            return self._rate
        elapsed = now_ns - self._start
        return self._count * SECOND / elapsed if self._start >= 0 and elapsed > 0 else 0.0
