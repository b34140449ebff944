"""How many orders are looked at closely at a time: others wait at the entrance, and attempts in flight are followed.

To find a machine's destination among hundreds of hosts is the most that its driver does for an attempt. Of two hundred
orders at once all would do that in the same few turns of the event loop, and what happens to others meanwhile would be
told behind all of it.

A place is given on after a while though who has it is not through: a host that is silent keeps only those waiting who
ask for it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

PLACES: Final = 8
HELD_SECONDS: Final = 0.5
"""Many times what an order takes whose hosts answer, and a tenth of what one takes whose host does not."""


class Entrance:
    """Of one process's orders. For one event loop."""

    def __init__(self, places: int = PLACES, seconds: float = HELD_SECONDS) -> None:
        """Let so many in at a time, and another one for each that has been in for so many seconds."""
        self._places: Final = asyncio.Semaphore(places)
        self._seconds: Final = seconds
        self.waiting = 0
        """How many wait to be let in."""

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, in turn, and have it for the length of the context or `seconds`, whichever is shorter."""
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        place = contextlib.ExitStack()  # which gives it back once, whoever closes it first
        place.callback(self._places.release)
        in_time = asyncio.get_running_loop().call_later(self._seconds, place.close)
        try:
            yield
        finally:
            in_time.cancel()
            place.close()
