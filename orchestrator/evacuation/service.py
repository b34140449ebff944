"""Evacuations over a queue of attempts: those that this process drives, and what is to be known of all.

Like the queue, this goes on with every open evacuation that nobody drives, from what its entry says.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final, Self

from orchestrator.attempt import Attempt
from orchestrator.evacuation.coming import coming_to
from orchestrator.evacuation.course import Course
from orchestrator.evacuation.kept import KeptEvacuations, driven
from orchestrator.evacuation.order import EvacuationOrder, machines_on, require_sensible, to_leave, to_return
from orchestrator.evacuation.plan import Evacuation, Kind
from orchestrator.evacuation.view import EvacuationView, view_of
from orchestrator.maintenance import in_maintenance, set_maintenance
from orchestrator.pruning import Pruning
from orchestrator.queueing import Slots
from orchestrator.service import AttemptQueue
from orchestrator.slot_book import SlotBook
from orchestrator.store.claim import HEARTBEAT_SECONDS
from orchestrator.store.store import STORE_UNUSABLE, Store
from orchestrator.surroundings import Surroundings
from vm_migration.errors import InvalidInput, MigrationError, Refused
from vm_migration.telemetry import counts, logs

_VIEW_SECONDS: Final = 0.2
_AT_THE_STORE: Final = 2
"""Courses at a time: an attempt's transition, which is written by the same few threads, stands behind no more."""
_log: Final = logs.get(__name__)


class Evacuations:
    """Drives evacuations while the context is entered."""

    def __init__(
        self, around: Surroundings, queue: AttemptQueue, slots: SlotBook, *, sole: bool = False, adopts: bool = True
    ) -> None:
        """Work over a queue that has these slots; `sole` and `adopts` are as the queue's."""
        self._around = around
        self._queue = queue
        self._slots = slots
        self._sole = sole
        self._adopts = adopts
        self._kept = KeptEvacuations(around.store.entries)
        self._turns = asyncio.Semaphore(_AT_THE_STORE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pruning = Pruning(self._kept.prune)
        self._group = asyncio.TaskGroup()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Take over what nobody drives, and start."""
        await self._stack.enter_async_context(self._group)
        if self._adopts:
            await self._take_over(sole=self._sole)
            for plan in await asyncio.to_thread(self._kept.all):
                self._around.observe_evacuation(plan.evacuation)  # the driver before may not have told its last change
        self._keeper = self._group.create_task(self._keep(), name="keeper of evacuations")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop driving; the next driver goes on."""
        held = list(self._tasks)
        for task in (self._keeper, *self._tasks.values()):
            task.cancel()
        await self._stack.aclose()
        for evacuation in held:
            with contextlib.suppress(MigrationError):  # a store that rests: the next driver takes it over all the same
                await asyncio.to_thread(self._kept.let_go, evacuation, self._around.driver)

    async def submit(self, order: EvacuationOrder) -> EvacuationView:
        """Enter an order and begin with it; the same asked again is answered with its state.

        Raises:
            InvalidInput: As `require_sensible`.
            Refused: Another one of the host is open; nothing is known that could be brought back.
            Unreachable: The host does not answer.
        """
        require_sensible(order, self._around.agents)
        known = await self._known(order)
        if known is not None:
            return known
        usual, now = self._slots.usual, self._around.clock()
        if order.kind is Kind.EVACUATE:
            entered = await self._enter_leaving(order, usual, now)
        else:
            entered = await asyncio.to_thread(self._enter_returning, order, usual, now)
        self._begin(entered)
        return await self.view(entered.evacuation)

    async def cancel(self, start: str) -> EvacuationView:
        """Cancel one, whoever drives it; what nobody drives is driven to its end here.

        Raises:
            InvalidInput: No such evacuation.
            Refused: It has ended.
        """
        plan = await asyncio.to_thread(self._kept.find, start)
        plan = await asyncio.to_thread(self._kept.request_cancel, plan.evacuation)
        if plan.evacuation not in self._tasks and not driven(plan, self._around.clock()):
            await self._go_on(plan.evacuation)
        self._queue.touch(plan.evacuation, end=True)
        return await self.view(plan.evacuation)

    async def view(self, start: str) -> EvacuationView:
        """Return one as it stands.

        Raises:
            InvalidInput: None begins so, or several do.
        """
        return await asyncio.to_thread(look, self._around.store, start)

    async def views(self, *, everything: bool) -> tuple[EvacuationView, ...]:
        """Return the open ones, or all, newest first."""
        return await asyncio.to_thread(look_at_all, self._around.store, everything=everything)

    async def watch(self, evacuation: str) -> AsyncGenerator[EvacuationView, None]:
        """Yield one at each change, and now and then without one, until it ends."""
        while True:
            seen = self._queue.version
            view = await self.view(evacuation)
            yield view
            if view.ended:
                return
            await asyncio.sleep(_VIEW_SECONDS)  # its many attempts change more often than anybody can look
            subjects = {evacuation, *(one.attempts[-1] for one in view.moves if one.attempts)}
            await self._queue.changed(seen, HEARTBEAT_SECONDS, subjects)

    async def ended(self, evacuation: str) -> EvacuationView:
        """Return one when it has ended, or this process no longer drives it."""
        task = self._tasks.get(evacuation)
        if task is not None:
            await asyncio.wait({task})
        return await self.view(evacuation)

    async def maintenance(self) -> frozenset[str]:
        """Return the hosts in maintenance."""
        return await asyncio.to_thread(in_maintenance, self._around.store.entries)

    async def set_maintenance(self, host: str, *, on: bool) -> frozenset[str]:
        """Put a host into maintenance or take it out, and return all that are.

        Raises:
            InvalidInput: The host is not configured.
        """
        self._around.agents.require(host)
        await asyncio.to_thread(set_maintenance, self._around.store.entries, host, on=on)
        return await self.maintenance()

    async def _known(self, order: EvacuationOrder) -> EvacuationView | None:
        try:
            return await self.view(order.evacuation)
        except InvalidInput:
            return None

    async def _enter_leaving(self, order: EvacuationOrder, usual: Slots, now: float) -> Evacuation:
        """Enter a plan; nobody chooses its host any more before anybody looks at what is there, and what comes there.

        A store that cannot be used may have entered it all the same: the host is left in maintenance then.
        """
        entries, host = self._around.store.entries, order.host
        changed = await asyncio.to_thread(set_maintenance, entries, host, on=True)
        try:
            coming = await coming_to(self._around, host)  # first: what has arrived meanwhile is there
            there = await machines_on(self._around.agents, host)
            return await asyncio.to_thread(self._enter, to_leave(order, there, coming, usual, now))
        except MigrationError as error:
            if changed and error.code != STORE_UNUSABLE:
                await asyncio.to_thread(set_maintenance, entries, host, on=False)
            raise

    def _enter_returning(self, order: EvacuationOrder, usual: Slots, now: float) -> Evacuation:
        """Enter a plan; its host is out of maintenance after that. Blocks."""
        entered = self._enter(to_return(order, self._kept, usual, now))
        set_maintenance(self._around.store.entries, order.host, on=False)
        return entered

    def _enter(self, plan: Evacuation) -> Evacuation:
        return self._kept.enter(replace(plan, driver=self._around.driver, heartbeat=self._around.clock()))

    async def _take_over(self, *, sole: bool = False) -> None:
        for head in await asyncio.to_thread(self._kept.open):
            if head.evacuation not in self._tasks and (sole or not driven(head, self._around.clock())):
                await self._go_on(head.evacuation, sole=sole)

    async def _go_on(self, evacuation: str, *, sole: bool = False) -> None:
        now, driver = self._around.clock(), self._around.driver
        with contextlib.suppress(Refused):  # another process drives it
            claimed = await asyncio.to_thread(self._kept.claim, evacuation, driver, now, sole=sole)
            _log.info("evacuation taken over", evacuation=evacuation, host=claimed.host)
            self._begin(claimed)

    def _begin(self, plan: Evacuation) -> None:
        if plan.evacuation not in self._tasks and not plan.ended and plan.driver == self._around.driver:
            task = self._group.create_task(self._run(plan), name=f"evacuation {plan.evacuation}")
            self._tasks[plan.evacuation] = task

    async def _run(self, plan: Evacuation) -> None:
        try:
            ended = await Course(plan, self._around, self._queue, self._slots, self._turns).run()
            counts.EVACUATIONS_ENDED.add(ended.kind.value, str(ended.outcome))
            _log.info("evacuation ended", evacuation=ended.evacuation, outcome=str(ended.outcome))
        except MigrationError as error:
            _log.error("evacuation is left", evacuation=plan.evacuation, exc_info=error)
        finally:
            del self._tasks[plan.evacuation]
            self._queue.touch(plan.evacuation)

    async def _keep(self) -> None:
        """Look for evacuations that others left, and forget old ones: nothing tells of a driver that is gone."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)  # claims go stale by the clock
            if self._adopts:
                try:
                    await self._take_over()
                    await self._pruning.at(self._around.clock())
                except Refused as error:
                    _log.warning("evacuations were not looked after", code=error.code, reason=error.message)


def look(store: Store, start: str) -> EvacuationView:
    """Return an evacuation as it stands. Blocks.

    Raises:
        InvalidInput: None begins so, or several do.
    """
    return _looked_at(store, KeptEvacuations(store.entries).find(start))


def look_at_all(store: Store, *, everything: bool) -> tuple[EvacuationView, ...]:
    """Return the open evacuations as they stand, or all, newest first. Blocks."""
    plans = KeptEvacuations(store.entries).all(everything=everything)
    return tuple(_looked_at(store, plan) for plan in plans)


def _looked_at(store: Store, plan: Evacuation) -> EvacuationView:
    """Return a plan with its attempts as they stand. Blocks."""
    rows: dict[str, Attempt] = {}
    for last in (one.attempts[-1] for one in plan.moves if one.attempts):
        with contextlib.suppress(InvalidInput):  # forgotten since, or not entered yet
            rows[last] = store.get(last)
    return view_of(plan, rows)
