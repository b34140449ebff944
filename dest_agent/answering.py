"""What one bulk stream is answered: its barriers and heartbeats, and every second how far it has come.

A source tells a slow link from a dead one by that: what it sends may lie in buffers for long, while answers that nobody
asked for still come. They come whatever the stream waits for here, a machine that takes its devices' state among it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Final, Protocol

from vm_migration.transfer.frames import Ack

PROGRESS_EVERY: Final = 1.0
"""Seconds between two answers that nobody asked for."""


class Arrival(Protocol):
    """What takes a stream's messages: dest_agent.incoming_attempt.IncomingAttempt."""

    async def take(self, message: bytes | memoryview, stream: int) -> Ack | None:
        """Take one message, and return what is answered; of frames of pages nothing is kept."""

    def progress(self, stream: int) -> Ack:
        """Return how far a stream has come."""


async def answered(
    attempt: Arrival, messages: AsyncIterator[bytes | memoryview], stream: int, *, tells: bool
) -> AsyncGenerator[Ack, None]:
    """Take a stream's messages and yield what is answered; `tells` of its own accord as well, from the start on.

    Raises:
        MigrationError: What `take` raises; the stream is over.
    """

    async def next_answer() -> Ack | None:
        async for message in messages:
            answer = await attempt.take(message, stream)
            if answer is not None:
                return answer
        return None

    async with aclosing(told(partial(attempt.progress, stream), next_answer, tells=tells)) as answers:
        async for answer in answers:
            yield answer


async def told(
    progress: Callable[[], Ack],
    next_answer: Callable[[], Coroutine[None, None, Ack | None]],
    *,
    tells: bool,
    looks: bool = False,
) -> AsyncGenerator[Ack, None]:
    """Yield what a stream's frames ask for, and where it `tells` also how far it is.

    Args:
        progress: Says how far it is.
        next_answer: Takes frames until one asks for an answer, and returns that; None at the stream's end.
        tells: Answer of its own accord as well, from the start on.
        looks: See every second that `progress` does not refuse, also where nothing is told.

    Raises:
        MigrationError: What either raises; the stream is over.
    """
    if tells:
        yield progress()
    step = asyncio.create_task(next_answer(), name="frames of a bulk stream")
    try:
        while True:
            await asyncio.wait((step,), timeout=PROGRESS_EVERY if tells or looks else None)
            if not step.done():
                far = progress()
                if tells:
                    yield far
                continue
            answer = step.result()
            if answer is None:
                return
            step = asyncio.create_task(next_answer(), name="frames of a bulk stream")
            yield answer
    finally:
        step.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await step
