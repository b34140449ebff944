"""When a call's turn comes, of somebody who calls faster than he may. Pure: from when his calls came.

::

    each caller has `per_second` calls a second, and those of `AT_ONCE` seconds at once
    one more waits for its turn; one whose turn is further away than `LONGEST` has none

So who waits for his answers calls as fast as he may, and no faster. Times are seconds of one clock. It is the generic
cell rate algorithm of ITU-T I.371.
"""

from collections.abc import Hashable
from typing import Final

AT_ONCE: Final = 1.0
LONGEST: Final = 10.0
KEPT: Final = 1024
"""Callers that are remembered; of more, the one that called longest ago is taken for a new one."""


class CallPace:
    """What each caller has used of his turns."""

    def __init__(self, per_second: float) -> None:
        """Give every caller so many calls a second, above 0."""
        self._apart: Final = 1 / per_second
        self._next: Final[dict[Hashable, float]] = {}

    def turn(self, caller: Hashable, now: float) -> float | None:
        """Take a turn and return in how many seconds it comes; None where it is too far away, and is not taken."""
        due = max(now, self._next.get(caller, now))
        wait = max(0.0, due - AT_ONCE - now)
        if wait > LONGEST:
            return None
        self._next.pop(caller, None)
        while len(self._next) >= KEPT:
            del self._next[next(iter(self._next))]
        self._next[caller] = due + self._apart
        return wait
