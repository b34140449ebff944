"""How often the figures of attempts are told: each about once a second, and so many a second of all of them.

States and events have no such bound: of hundreds of attempts they would stand behind figures, which may wait.
"""

import time
from collections.abc import Callable
from typing import Final

MOST_A_SECOND: Final = 100


class ProgressPace:
    """The attempts whose figures one process tells. For one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none; `clock` returns seconds that only grow."""
        self._clock: Final = clock
        self._told: Final[dict[str, float]] = {}

    def due(self, attempt: str) -> bool:
        """Say whether an attempt's figures are told now; of a few attempts they always are."""
        now, last = self._clock(), self._told.get(attempt)
        if last is not None and now - last < self._seconds():
            return False
        self._told[attempt] = now
        return True

    def over(self, attempt: str) -> None:
        """Forget an attempt that has ended."""
        self._told.pop(attempt, None)

    def _seconds(self) -> float:
        """Return how long an attempt waits for its next turn."""
        return 0.0 if len(self._told) <= MOST_A_SECOND else len(self._told) / MOST_A_SECOND
