"""How many lines of a log one cause may have, so that nobody fills a disk by being refused.

::

    burst lines at once, then one every 1/per_second s; what is withheld is told by the cause's next line

A cause is a key, such as a peer's identity. `KEPT` of them are remembered; of more, the one that was heard of longest
ago makes way, and what was withheld of it is not told any more.
"""

from dataclasses import dataclass
from typing import Final

KEPT: Final = 256


@dataclass(slots=True)
class _Left:
    lines: float
    at: float
    withheld: int = 0


class Allowance:
    """What is left to each cause; times are in seconds of one clock that does not go back."""

    def __init__(self, burst: int, per_second: float) -> None:
        """Give every cause `burst` lines, at least 1, and `per_second` more as time passes."""
        self._burst: Final = burst
        self._per_second: Final = per_second
        self._left: Final[dict[str, _Left]] = {}

    def take(self, cause: str, now: float) -> int | None:
        """Return how many lines of a cause were withheld since its last one; None where this one is withheld, too."""
        left = self._left.pop(cause, None) or _Left(self._burst, now)
        while len(self._left) >= KEPT:
            del self._left[next(iter(self._left))]
        self._left[cause] = left
        left.lines = min(self._burst, left.lines + max(0.0, now - left.at) * self._per_second)
        left.at = now
        if left.lines < 1:
            left.withheld += 1
            return None
        left.lines -= 1
        withheld, left.withheld = left.withheld, 0
        return withheld
