"""Keeping a stream below a bandwidth."""

import asyncio
from typing import Final

_BURST_SECONDS: Final = 0.05


class Pacer:
    """Spends bytes no faster than `bytes_per_second`, which may change at any time; 0 does not limit."""

    def __init__(self) -> None:
        self.bytes_per_second = 0
        self._ready_at = 0.0

    async def spend(self, count: int) -> None:
        """Wait until so many bytes more keep within the bandwidth."""
        if self.bytes_per_second <= 0:
            return
        now = asyncio.get_running_loop().time()
        self._ready_at = max(self._ready_at, now - _BURST_SECONDS) + count / self.bytes_per_second
        if self._ready_at > now:
            await asyncio.sleep(self._ready_at - now)
