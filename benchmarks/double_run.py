"""Looks, again and again, whether a guest runs on two hosts. Looks that failed, or never saw it, prove nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

_LOOK_SECONDS: Final = 0.02


class Unseen(AssertionError):
    """No look saw the guest anywhere."""


@dataclass
class Seen:
    """What was seen: `looks` counts those that found the guest somewhere."""

    looks: int = 0
    doubled: bool = False


@contextlib.asynccontextmanager
async def watched(running: Callable[[], Awaitable[int]], *, every: float = _LOOK_SECONDS) -> AsyncIterator[Seen]:
    """Ask on how many hosts a guest runs, every so many seconds, while the context is entered.

    Raises:
        Unseen: It was found nowhere, each time.
        Exception: What `running` raised; nothing was looked at after that.
    """
    seen = Seen()

    async def look() -> None:
        while True:
            found = await running()
            seen.looks += found > 0
            seen.doubled |= found > 1
            await asyncio.sleep(every)  # the guests are in other processes, which tell nobody

    watching = asyncio.create_task(look(), name="look for a double run")
    try:
        yield seen
    finally:
        watching.cancel()
        await asyncio.wait({watching})
    if not watching.cancelled():
        watching.result()
    if not seen.looks:
        raise Unseen("The guest was seen on no host: nothing says that it did not run on two")
