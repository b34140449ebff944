"""Keeping a stream below a bandwidth."""

import asyncio
from typing import Final

_BURST_SECONDS: Final = 0.05


class Pacer:
    """Spends bytes no faster than `bytes_per_second`, which may change at any time; 0 does not limit."""

    def __init__(self) -> None:
        self.bytes_per_second = 0
        self._ready_at = 0.0

    def spend(self, count: int) -> None:
        """Note that so many bytes more were sent."""
        if self.bytes_per_second > 0:
            now = asyncio.get_running_loop().time()
            self._ready_at = max(self._ready_at, now - _BURST_SECONDS) + count / self.bytes_per_second

    async def ready(self, longest: float, unless: asyncio.Event) -> bool:
        """Wait until what was spent keeps within the bandwidth, for so many seconds at most; tell whether it does.

        Whoever sets `unless` ends the wait: what follows is sent at once.
        """
        left = self._ready_at - asyncio.get_running_loop().time()
        if self.bytes_per_second <= 0 or left <= 0 or unless.is_set():
            return True
        try:
            async with asyncio.timeout(min(left, longest)):
                await unless.wait()
        except TimeoutError:
            return left <= longest
        return True
