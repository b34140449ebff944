"""The claims that one process holds, kept together: however many attempts it drives, one question looks at them.

::

    four times a second       what does somebody wish for any of ours?        one call of `open_rows`
    every HEARTBEAT_SECONDS   they are ours still, and this far by now        one call of `renew`

To SQLite that is one read, and one write. To etcd the first is one question where nobody has written, else a read of
what was written since (orchestrator.store.etcd.open_rows); the second is a read and a transaction of twenty-five.

What an attempt's source tells between two transitions is not written as it comes: it goes with the claim.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from orchestrator.attempt import Attempt
from orchestrator.store.claim import HEARTBEAT_SECONDS
from orchestrator.store.held_row import taken_over
from orchestrator.store.store import STORE_UNUSABLE, OpenRow, Store
from vm_migration.errors import Refused, Stale
from vm_migration.telemetry import logs

LOOK_SECONDS: Final = 0.25
_log: Final = logs.get(__name__)


class Claimed(Protocol):
    """A row that is claimed."""

    @property
    def attempt(self) -> Attempt:
        """The attempt as its driver knows it."""

    def hear(self, row: OpenRow) -> None:
        """Take what somebody wishes, as it is written down."""


class Claims:
    """The rows of one store that this process drives. They are looked at while there are any."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._rows: dict[str, tuple[Claimed, asyncio.Future[None]]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def keep(self, row: Claimed) -> None:
        """Renew a row's claim and hear of wishes, until this is cancelled.

        Raises:
            Stale: Somebody else has taken the attempt over.
            Refused: The store cannot be used at all, otherwise than for a while.
        """
        identifier = row.attempt.attempt
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rows[identifier] = (row, over)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="keeper of claims")
        try:
            await over
        finally:
            del self._rows[identifier]
            if over.done() and not over.cancelled():
                over.exception()  # it may have come together with the cancel
            if not self._rows and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        try:
            await self._look_on()
        except Exception as error:  # noqa: BLE001  # whatever it is, whoever drives must hear that nobody looks
            for _, over in self._rows.values():
                _fail(over, error)
            self._looking = None

    async def _look_on(self) -> None:
        loop = asyncio.get_running_loop()
        beat, rests = loop.time(), False
        while True:
            await asyncio.sleep(LOOK_SECONDS)  # the rows are in a store, where anybody may ask for a cancel
            due = loop.time() - beat >= HEARTBEAT_SECONDS
            try:
                await self._looked(due=due)
            except Refused as error:
                if error.code != STORE_UNUSABLE:
                    raise
                if not rests:  # once: they are looked at four times a second
                    _log.warning("claims are not renewed", attempts=len(self._rows), reason=error.message)
                rests = True
            else:
                beat, rests = loop.time() if due else beat, False

    async def _looked(self, *, due: bool) -> None:
        held = {identifier: (row.attempt, row, over) for identifier, (row, over) in self._rows.items()}
        lost: frozenset[str] = frozenset()
        if due:
            attempts = [attempt for attempt, _, _ in held.values()]
            lost = await asyncio.to_thread(self._store.renew, attempts, self._clock())
        found = {one.attempt: one for one in await asyncio.to_thread(self._store.open_rows)}
        for identifier, (attempt, row, over) in held.items():
            now = found.get(identifier)
            if now is not None:
                row.hear(now)
            if identifier in lost:
                _fail(over, _taken_over(attempt, now))


def _taken_over(attempt: Attempt, row: OpenRow | None) -> Stale:
    return taken_over(attempt.attempt, "nobody" if row is None else row.driver, 0 if row is None else row.term)


def _fail(over: "asyncio.Future[None]", error: Exception) -> None:
    if not over.done():
        over.set_exception(error)
