"""Keeping a stream below a bandwidth."""

import asyncio
import contextlib
from typing import Final

from vm_migration.transfer.frames import MAX_PAYLOAD
from vmm.memory.quantities import PAGE_SIZE

_BURST_SECONDS: Final = 0.02
_FRAME_SECONDS: Final = 0.02
"""Of the bandwidth, what a frame of each stream may hold, all of them together."""
_LEAST_PAYLOAD: Final = PAGE_SIZE + 16
"""One page, with its run and its digest."""
_LOOK_EVERY: Final = 0.1
"""Seconds after which whoever waits looks whether the bandwidth has changed."""
_NOTHING: Final = 1e-6
"""Seconds that are not worth a wait."""


def frame_payload(bytes_per_second: int, streams: int) -> int:
    """Return the largest payload with which a frame of each stream together take 20 ms; one page always fits."""
    if not bytes_per_second:
        return MAX_PAYLOAD
    return max(_LEAST_PAYLOAD, min(MAX_PAYLOAD, int(bytes_per_second * _FRAME_SECONDS / streams)))


class Pacer:
    """Spends bytes no faster than `bytes_per_second`, which may change at any time; 0 does not limit.

    In any time, what is sent is at most the bandwidth times that time, a burst of 20 ms of it, and one frame for each
    stream: a frame is sent first and waited for then. With frames of at most `frame_payload` that is within 5 % over
    any second, where a page of each stream is less than 20 ms of the bandwidth. Whoever waits under a bandwidth that
    has changed goes on under the new one within a tenth of a second.
    """

    def __init__(self) -> None:
        self._bytes_per_second = 0
        self._ahead = 0.0
        """Bytes sent beyond what the bandwidth has allowed; below nought, what a burst may take at once."""
        self._as_of = 0.0

    @property
    def bytes_per_second(self) -> int:
        """The bandwidth; 0 does not limit."""
        return self._bytes_per_second

    @bytes_per_second.setter
    def bytes_per_second(self, value: int) -> None:
        if self._bytes_per_second > 0:
            self._catch_up()  # the time until now was the old one's
        else:
            self._ahead, self._as_of = 0.0, asyncio.get_running_loop().time()
        self._bytes_per_second = value

    def spend(self, count: int) -> None:
        """Note that so many bytes more were sent."""
        if self._bytes_per_second > 0:
            self._catch_up()
            self._ahead += count

    async def ready(self, longest: float, unless: asyncio.Event) -> bool:
        """Wait until what was spent keeps within the bandwidth, for so many seconds at most; tell whether it does.

        Whoever sets `unless` ends the wait: what follows is sent at once.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + longest
        while self._bytes_per_second > 0 and not unless.is_set():
            self._catch_up()
            left = self._ahead / self._bytes_per_second
            if left <= _NOTHING:
                return True
            patience = until - loop.time()
            if patience <= _NOTHING:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, patience, _LOOK_EVERY)):
                    await unless.wait()
        return True

    def _catch_up(self) -> None:
        now = asyncio.get_running_loop().time()
        allowed = (now - self._as_of) * self._bytes_per_second
        self._ahead, self._as_of = max(self._ahead - allowed, -_BURST_SECONDS * self._bytes_per_second), now
