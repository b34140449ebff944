"""One attempt's row as its driver holds it: written, kept fresh, and looked at for a wish to cancel.

A wish comes from this process at once, and from others through the store (orchestrator.claims).
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import fields, replace
from operator import attrgetter
from typing import Final, TypeVar

from orchestrator.attempt import Attempt
from orchestrator.claims import Claims
from orchestrator.store.store import STORE_UNUSABLE, OpenRow, Ownership, Store
from vm_migration.errors import MigrationError, Refused, Unreachable, innermost
from vm_migration.telemetry import logs

_Answer = TypeVar("_Answer")
_BACKOFF: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_WRITES: Final = 10
_log: Final = logs.get(__name__)
_beside_report: Final = attrgetter(*(one.name for one in fields(Attempt) if one.name != "report"))


class CancelAsked(Exception):
    """The wish to cancel arrived while something was waited for."""


class DrivenRow:
    """The row of an attempt that this process has claimed."""

    def __init__(
        self,
        attempt: Attempt,
        store: Store,
        clock: Callable[[], float],
        observe: Callable[[Attempt], None],
        claims: Claims | None = None,
    ) -> None:
        """Take the row, and the `claims` that this process keeps together; without any it keeps its own."""
        self.attempt = attempt
        self._claims = Claims(store, clock) if claims is None else claims
        self.cancel = asyncio.Event()
        self._store = store
        self._clock = clock
        self._observe = observe
        self.hear(attempt)

    async def write(
        self, attempt: Attempt, *, owner: Ownership | None = None, successor: Attempt | None = None
    ) -> None:
        """Write the attempt, with what belongs to its end, and tell whoever observes it.

        Raises:
            Stale: Somebody else has taken it over.
            Refused: The store cannot be written, for as long as this is asked again; the agents go on alone.
        """
        self.attempt = await self._saved(attempt, owner, successor)
        self.hear(self.attempt)
        self._observe(self.attempt)

    async def take_note(self, attempt: Attempt) -> None:
        """Take what is new of the attempt: written at once, but for its source's figures, which go with the claim.

        Raises:
            MigrationError: As `write`.
        """
        if not is_progress(self.attempt, attempt):
            await self.write(attempt)
            return
        self.attempt = replace(attempt, updated_at=self._clock())
        self._observe(self.attempt)

    async def say(self, reason: str) -> None:
        """Write what is waited for."""
        if reason != self.attempt.reason:
            await self.write(replace(self.attempt, reason=reason))

    async def let_go(self) -> None:
        """Give the claim back without an end."""
        await asyncio.to_thread(self._store.let_go, self.attempt)

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew the claim, and hear of a wish to cancel, while the context is entered.

        Raises:
            Stale: Somebody else has taken the attempt over.
        """
        try:
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self._claims.keep(self), name=f"keeper of {self.attempt.attempt}")
                yield
                keeper.cancel()
        except* MigrationError as errors:
            raise innermost(errors) from None

    async def insist(
        self, ask_once: Callable[[], Awaitable[_Answer]], patience: float, *, quiet: bool = False
    ) -> _Answer:
        """Repeat a call that may be made twice while nobody answers, at most for `patience` seconds.

        What is waited for stands in the row meanwhile, unless this is `quiet`.

        Raises:
            Unreachable: Nobody answered for that long.
            MigrationError: What was answered.
        """
        loop = asyncio.get_running_loop()
        until, failures = loop.time() + patience, 0
        while True:
            try:
                return await ask_once()
            except Unreachable as error:
                if loop.time() > until:
                    raise
                if not quiet:
                    await self.say(f"asks again: {error.message}")
            await pause(failures)
            failures += 1

    async def unless_cancelled(self, calling: Coroutine[object, object, _Answer]) -> _Answer:
        """Wait for a call, and leave it for a wish to cancel.

        Raises:
            CancelAsked: The wish came first; the call was given up, and nothing is known of what it did.
        """
        return await unless(self.cancel, calling)

    async def _saved(self, attempt: Attempt, owner: Ownership | None, successor: Attempt | None) -> Attempt:
        for failures in range(_WRITES):
            try:
                save = functools.partial(self._store.save, owner=owner, successor=successor)
                return await asyncio.to_thread(save, attempt, self._clock())
            except Refused as error:
                if error.code != STORE_UNUSABLE or failures == _WRITES - 1:
                    raise
                _log.warning("attempt is not written down", attempt=attempt.attempt, reason=error.message)
            await pause(failures)
        raise AssertionError("The last try returns or raises")

    def hear(self, row: Attempt | OpenRow) -> None:
        """Take what somebody wishes, as it is written down: that it is cancelled, or has another bandwidth."""
        if row.cancel_requested:
            self.cancel.set()
        if row.asked.bandwidth != self.attempt.asked.bandwidth:
            self.attempt = replace(self.attempt, asked=replace(self.attempt.asked, bandwidth=row.asked.bandwidth))


def is_progress(before: Attempt, after: Attempt) -> bool:
    """Say whether nothing is new but the figures that an attempt's source tells. Pure."""
    return _beside_report(before) == _beside_report(after)


def give_back(store: Store, attempt: Attempt) -> None:
    """Give a claim back on the way out. Where the store rests, the claim ends by itself when nobody renews it."""
    with contextlib.suppress(Refused):
        store.let_go(attempt)


async def unless(wish: asyncio.Event, calling: Coroutine[object, object, _Answer]) -> _Answer:
    """Wait for a call, and give it up for a wish.

    Raises:
        CancelAsked: The wish came first.
    """
    if wish.is_set():
        calling.close()
        raise CancelAsked
    call = asyncio.create_task(calling, name="call")
    wished = asyncio.create_task(wish.wait(), name="wish")
    try:
        await asyncio.wait({call, wished}, return_when=asyncio.FIRST_COMPLETED)
        if wish.is_set():
            raise CancelAsked
        return await call
    finally:
        await stopped(wished)
        await stopped(call)


async def pause(failures: int) -> None:
    """Wait before asking again: longer with each failure, two seconds at most."""
    await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])


async def stopped(task: "asyncio.Task[_Answer]") -> None:
    """Cancel a task and wait until it has ended; how it ended is not told."""
    task.cancel()
    await asyncio.wait({task})
