"""How fast a guest writes, by its own counter, as its machine process tells it ten times a second."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vm_migration.machine.software import SoftwareMachine

WINDOW: Final = 1.0
"""Seconds over which a rate is taken."""
_EVERY: Final = 0.1
_SLACK: Final = 0.02


@dataclass(slots=True)
class Watch:
    """Pages written by vCPUs at moments of the monotonic clock, oldest first."""

    samples: list[tuple[float, int]] = field(default_factory=list)

    def windows(self) -> list[tuple[float, float]]:
        """Return every whole second that begins with a sample: when it began, and pages a second in it."""
        found, end = [], 0
        for began, written in self.samples:
            while end < len(self.samples) and self.samples[end][0] - began < WINDOW - _SLACK:
                end += 1
            if end == len(self.samples):
                break
            until, more = self.samples[end]
            found.append((began, (more - written) / (until - began)))
        return found

    def before(self, moment: float) -> float:
        """Return the rate of the last whole second that ended before a moment."""
        return [rate for began, rate in self.windows() if began + WINDOW <= moment][-1]

    def back_at(self, rate: float, after: float) -> float | None:
        """Return when the first whole second after a moment began that has a rate; None while there was none."""
        return next((began for began, reached in self.windows() if began >= after and reached >= rate), None)

    async def until_back(self, rate: float, after: float, longest: float) -> float:
        """Wait for `back_at`; TimeoutError after so many seconds."""
        async with asyncio.timeout(longest):
            while (began := self.back_at(rate, after)) is None:  # noqa: ASYNC110 - the process has no event for it
                await asyncio.sleep(_EVERY)
        return began


@contextlib.asynccontextmanager
async def watching(directory: Path) -> AsyncIterator[Watch]:
    """Watch a machine in its directory while the context is entered."""
    watch, machine = Watch(), SoftwareMachine(directory)

    async def look() -> None:
        due = time.monotonic()
        while True:
            written = (await machine.describe()).guest.pages_written
            watch.samples.append((time.monotonic(), written))
            due = max(due + _EVERY, time.monotonic())
            await asyncio.sleep(due - time.monotonic())  # the rate at which it is looked at

    looking = asyncio.create_task(look(), name="watch the guest")
    try:
        await asyncio.sleep(2 * WINDOW)
        yield watch
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await machine.close()
