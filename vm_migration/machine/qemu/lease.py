"""A stream that QEMU sends by itself, and about which nobody asks any more, is called off.

One that agents carry breaks with its agent. A direct one would go on: it would come to its gate, where the guest stands
still, and wait there for an agent that was killed, or is frozen.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

SECONDS: Final = 10.0
"""For which its agent may be silent; one that lives asks about it every second (source_agent.own_stream.carriers)."""
_AGAIN: Final = 1.0
"""Seconds after which a stream that could not be called off, or has not ended, is called off once more."""


class Lease:
    """Of one machine's stream."""

    def __init__(self, call_off: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> None:
        """`call_off` ends the stream, whatever it has come to, and tells whether there is none any more."""
        self._call_off: Final = call_off
        self._seconds: Final = seconds
        self._until = 0.0
        self._watching: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Watch over a stream from here on; one that is about to be started may fail to, or seem to."""
        self.end()
        self.renew()
        self._watching = asyncio.create_task(self._watch(), name="lease of a stream")

    def renew(self) -> None:
        """Note that its agent was heard."""
        self._until = asyncio.get_running_loop().time() + self._seconds

    def end(self) -> None:
        """Watch over nothing any more."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while (left := self._until - loop.time()) > 0:  # noqa: ASYNC110 - silence has no event
                await asyncio.sleep(left)
            if await self._call_off():
                return
            await asyncio.sleep(_AGAIN)  # QEMU that hangs tells nobody when it goes on
