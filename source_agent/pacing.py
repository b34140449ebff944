"""Keeping a stream below a bandwidth."""

import asyncio
from typing import Final

_BURST_SECONDS: Final = 0.05


class Pacer:
    """Spends bytes no faster than `bytes_per_second`, which may change at any time; 0 does not limit."""

    def __init__(self) -> None:
        self.bytes_per_second = 0
        self._ahead = 0.0
        """Bytes sent beyond what the bandwidth has allowed; below nought, what a burst may take at once."""
        self._as_of = 0.0

    def spend(self, count: int) -> None:
        """Note that so many bytes more were sent."""
        if self.bytes_per_second > 0:
            self._catch_up()
            self._ahead += count

    async def ready(self, longest: float, unless: asyncio.Event) -> bool:
        """Wait until what was spent keeps within the bandwidth, for so many seconds at most; tell whether it does.

        Whoever sets `unless` ends the wait: what follows is sent at once.
        """
        if self.bytes_per_second <= 0 or unless.is_set():
            return True
        self._catch_up()
        left = self._ahead / self.bytes_per_second
        if left <= 0:
            return True
        try:
            async with asyncio.timeout(min(left, longest)):
                await unless.wait()
        except TimeoutError:
            return left <= longest
        return True

    def _catch_up(self) -> None:
        now = asyncio.get_running_loop().time()
        allowed = (now - self._as_of) * self.bytes_per_second
        self._ahead, self._as_of = max(self._ahead - allowed, -_BURST_SECONDS * self.bytes_per_second), now
