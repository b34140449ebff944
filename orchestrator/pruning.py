"""Forgets what ended long ago. That is looked for once in a while: it reads what mostly stays."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

KEEP_SECONDS: Final = 30 * 86_400.0
PRUNE_SECONDS: Final = 60.0


class Pruning:
    """When one process has something forgotten."""

    def __init__(self, prune: Callable[[float], object]) -> None:
        """Take what forgets all that ended before a time. It blocks, and is called in a thread."""
        self._prune = prune
        self._last = -math.inf

    async def at(self, now: float) -> None:
        """Forget what ended long before now, unless that was done just now; raises what forgetting raises."""
        if not 0 <= now - self._last < PRUNE_SECONDS:
            await asyncio.to_thread(self._prune, now - KEEP_SECONDS)
            self._last = now
