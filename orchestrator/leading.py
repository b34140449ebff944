"""The queue of an orchestrator, while it leads: alone over its store, or in turn with others over etcd.

::

    alone      the store's lock is held: it leads from its start to its end
    in turn    stands by -> leads -> its lease has ended, or its key is gone -> stands by ...

One that stands by serves, and answers every call by saying so.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from orchestrator.doors import STANDING_BY
from orchestrator.driven_row import stopped
from orchestrator.driving import Driving, driving
from orchestrator.evacuation.service import Evacuations
from orchestrator.service import AttemptQueue
from orchestrator.store.claim import CLAIM_SECONDS
from orchestrator.store.etcd.leadership import Leadership
from orchestrator.surroundings import Surroundings
from vm_migration.errors import Refused, Unreachable, innermost
from vm_migration.telemetry import logs

_AGAIN_SECONDS: Final = 1.0
_log: Final = logs.get(__name__)


class Leading:
    """Where the queue is met by those who serve."""

    def __init__(self, at_work: Driving | None = None, leader: Callable[[], str] = str) -> None:
        """Begin with what drives, or without; `leader` tells who leads otherwise."""
        self._at_work = at_work
        self._leader = leader

    @property
    def leads(self) -> bool:
        """Whether this orchestrator drives at this moment."""
        return self._at_work is not None

    @property
    def queue(self) -> AttemptQueue:
        """The queue.

        Raises:
            Unreachable: This orchestrator stands by: `standing-by`.
        """
        return self._driving().queue

    @property
    def evacuations(self) -> Evacuations:
        """The evacuations over it.

        Raises:
            Unreachable: As the queue's.
        """
        return self._driving().evacuations

    def _driving(self) -> Driving:
        if self._at_work is not None:
            return self._at_work
        leader = self._leader()
        text = f"This orchestrator stands by: {leader or 'nobody'} leads" + ("" if leader else " at this moment")
        hint = "Name all of the site's orchestrators in `[site] orchestrator`: the one that leads is found"
        raise Unreachable(STANDING_BY, text, hint)

    @contextlib.contextmanager
    def by(self, at_work: Driving) -> Iterator[None]:
        """Lead by what drives while the context is entered."""
        self._at_work = at_work
        try:
            yield
        finally:
            self._at_work = None


@contextlib.asynccontextmanager
async def leading_alone(around: Surroundings) -> AsyncIterator[Leading]:
    """Lead while the context is entered."""
    async with driving(around, sole=True) as at_work:
        yield Leading(at_work)


@contextlib.asynccontextmanager
async def leading_in_turn(around: Surroundings, leadership: Leadership) -> AsyncIterator[Leading]:
    """Stand by, and lead whenever nobody else does, while the context is entered."""
    leading = Leading(leader=lambda: leadership.leader)
    async with asyncio.TaskGroup() as group:
        turns = group.create_task(_take_turns(around, leadership, leading), name="turns")
        yield leading
        turns.cancel()


async def _take_turns(around: Surroundings, leadership: Leadership, leading: Leading) -> None:
    while True:
        await leadership.won()
        try:
            await _lead(around, leadership, leading)
        except* Refused as errors:  # the store rests just now: it is tried again from the start
            _log.warning("cannot lead", reason=str(innermost(errors)))
            await asyncio.sleep(_AGAIN_SECONDS)  # a store that rests tells nobody when it is back
        finally:
            await leadership.resigned()


async def _lead(around: Surroundings, leadership: Leadership, leading: Leading) -> None:
    lease = asyncio.create_task(leadership.lost(), name="lease")  # to take over hundreds may take longer than it lasts
    try:
        async with driving(around, sole=True) as at_work:
            # What the leader before left unpublished; its open attempts are ours by now, so it counts as gone.
            await asyncio.to_thread(around.store.adopt_outbox, around.driver, around.clock(), CLAIM_SECONDS)
            with leading.by(at_work):
                await lease
    finally:
        await stopped(lease)
