"""Drives one evacuation: attempts are submitted as places come free, and followed until every machine has an outcome.

::

    written: this machine gets this attempt  ->  submitted to the queue  ->  followed to its end, retries included

Every step is found again in the plan, so that a driver which takes over goes on: an attempt that was written and never
entered is drawn anew, one that was entered is followed. A machine that somebody else moves meanwhile is waited for.
"""

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Iterator, Mapping
from dataclasses import replace
from typing import Final, Protocol

from orchestrator.admission import Order
from orchestrator.attempt import Attempt, Outcome, fault_of
from orchestrator.driven_row import stopped
from orchestrator.evacuation.kept import Change, KeptEvacuations
from orchestrator.evacuation.order import told_by
from orchestrator.evacuation.plan import (
    Evacuation,
    Kind,
    Move,
    ahead_of,
    closed,
    followed,
    given_up,
    measure_ms,
    next_look,
    noted,
    put_off,
    slots_needed,
    startable,
    started,
)
from orchestrator.inventory import Survey
from orchestrator.preflight import ANY
from orchestrator.retrying import PASSING
from orchestrator.slot_book import SlotBook
from orchestrator.store.claim import HEARTBEAT_SECONDS, is_held
from orchestrator.store.store import STORE_UNUSABLE
from orchestrator.surroundings import Surroundings
from vm_migration.errors import InternalError, InvalidInput, MigrationError, Refused, Unreachable
from vm_migration.telemetry import logs

_LATER: Final = PASSING | {"queue-full", STORE_UNUSABLE}
_log: Final = logs.get(__name__)


class Queue(Protocol):
    """Where attempts are driven."""

    async def submit(self, order: Order) -> Attempt:
        """Check an order and queue it."""

    async def cancel(self, attempt: Attempt) -> Attempt:
        """Cancel an attempt, queued or driven."""

    @property
    def ends(self) -> int:
        """Grows when an attempt is driven no further, and when somebody is to look."""

    async def ended(self, seen: int, seconds: float, of: Collection[str]) -> None:
        """Return when there was an end of one of some subjects since so many were seen, or after so many seconds."""

    def touch(self, subject: str) -> None:
        """Wake whoever waits for a change of it."""

    def look_again(self) -> None:
        """Have the queue decide anew who may start."""


class Course:
    """One evacuation, claimed by this driver."""

    def __init__(
        self, plan: Evacuation, around: Surroundings, queue: Queue, slots: SlotBook, turns: asyncio.Semaphore
    ) -> None:
        """Take the plan, and the `turns` of all courses of this process at the store."""
        self._name = plan.evacuation
        self._turns = turns
        self._around = around
        self._queue = queue
        self._slots = slots
        self._kept = KeptEvacuations(around.store.entries)
        self._told_to_cancel: set[str] = set()
        self._told: Evacuation | None = None

    async def run(self) -> Evacuation:
        """Drive to the end and return the plan as it was written last.

        Raises:
            Stale: Somebody else has taken it over.
        """
        try:
            subjects = {self._name}
            while True:
                seen, seconds = self._queue.ends, self._idle()
                with _unless_the_store_rests(self._name):
                    plan = await self._follow()
                    if plan.ended:
                        return plan
                    subjects = {self._name, *(one.current for one in plan.moves if one.current)}
                    if await self._beating(self._next_step(plan)):
                        continue
                    seconds = next_look(plan, self._around.clock(), seconds)
                await self._queue.ended(seen, seconds, subjects)
        finally:
            self._slots.ask(self._name, {}, {})

    def _idle(self) -> float:
        """Return in how many seconds to look again though nothing happened: as claims go stale, and not all at once."""
        return HEARTBEAT_SECONDS * (1.5 + self._around.chance())

    async def _beating(self, step: Coroutine[object, object, bool]) -> bool:
        """Do a step, and say meanwhile that this driver lives: a host may be silent, and there is an entrance."""
        doing = asyncio.create_task(step, name=f"step of {self._name}")
        try:
            while not (await asyncio.wait({doing}, timeout=HEARTBEAT_SECONDS))[0]:
                with _unless_the_store_rests(self._name):
                    await self._written(lambda plan: plan)
            return await doing
        finally:
            await stopped(doing)

    async def _next_step(self, plan: Evacuation) -> bool:
        """Do what is to be done next; say whether anything was."""
        if plan.cancel_requested:
            await self._cancel(plan)
            return False
        ready = startable(plan, self._around.clock())
        if ready:
            await self._start(plan, ready[0])
        return bool(ready)

    async def _follow(self) -> Evacuation:
        """Note how every machine's attempt stands, and that this driver lives."""
        # In one turn of a thread: there may be hundreds of evacuations, which look every few seconds each.
        async with self._turns:
            # Not before it: a claim that is written as old as the wait was long would look given up.
            now, fraction = self._around.clock(), self._around.chance()
            before, after, rows = await asyncio.to_thread(self._followed, now, fraction)
        self._tell(after)
        if after.updated_at != before.updated_at:
            self._queue.touch(self._name)
        if self._slots.ask(self._name, *slots_needed(after, rows), ahead_of(after)):
            self._queue.look_again()
        return after

    def _followed(self, now: float, fraction: float) -> tuple[Evacuation, Evacuation, Collection[Attempt]]:
        """Return the plan, as it is written after its attempts were looked at, and those. Blocks."""
        before = self._kept.find(self._name)
        rows = self._rows(before)

        def change(plan: Evacuation) -> Evacuation:
            moves = tuple(_looked_at(move, rows, now, fraction) for move in plan.moves)
            return noted(closed(given_up(replace(plan, moves=moves))), rows.values(), self._slots.usual)

        after = self._kept.drive(self._name, self._around.driver, now, change)
        return before, after, rows.values()

    def _rows(self, plan: Evacuation) -> dict[str, Attempt]:
        found: dict[str, Attempt] = {}
        for move in plan.moves:
            wanted = move.current or (move.attempts[-1] if move.outcome == Outcome.UNRESOLVED else "")
            while wanted and wanted not in found:
                with contextlib.suppress(InvalidInput):  # written, and never entered
                    found[wanted] = self._around.store.get(wanted)
                wanted = found[wanted].retry.next if wanted in found else ""
        return found

    async def _start(self, plan: Evacuation, move: Move) -> None:
        """Have a machine moved, unless that is done already or somebody else is at it."""
        try:
            told = await told_by(self._around.agents, plan.host)
        except MigrationError as error:
            await self._put_off(move, error)
            return
        other = await asyncio.to_thread(self._around.store.open_attempt_of, move.machine)
        if other is not None and is_held(other, self._around.clock()):
            why = f"waits for attempt {other.attempt}, which moves it to {other.destination}"
            later = self._around.clock() + HEARTBEAT_SECONDS
            await self._write_move(replace(move, reason=why, not_before=later))
            return
        if (without := _without_attempt(plan, move, told)) is not None:
            await self._write_move(without)
            return
        sizes = {one.machine: one.ram_bytes for one in told.owned}
        move = replace(move, ram_bytes=sizes.get(move.machine, move.ram_bytes))  # unknown, of one that was to come yet
        await self._submit(plan, move, plan.host if plan.kind is Kind.EVACUATE else await self._last_owner(move))

    async def _last_owner(self, move: Move) -> str:
        """Return the host that owned a machine when that was written last; empty where it never was."""
        owner = await asyncio.to_thread(self._around.store.owner_of, move.machine)
        return owner.host if owner is not None and owner.host in self._around.agents.hosts else ""

    async def _submit(self, plan: Evacuation, move: Move, at: str) -> None:
        attempt = self._around.draw_identifier()
        await self._write_move(started(move, attempt))
        try:
            await self._queue.submit(_order(plan, move, attempt, at))
        except MigrationError as error:
            await self._put_off(move, error)

    async def _put_off(self, move: Move, error: MigrationError) -> None:
        """Note that a machine got no attempt: for now, or for good."""
        fault = fault_of(error)
        if isinstance(error, Unreachable) or error.code in _LATER:
            after = put_off(move, fault, self._around.clock(), self._around.chance())
        elif isinstance(error, InternalError):
            after = replace(move, outcome=Outcome.FAILED, internal=True, error=fault)
        else:
            after = replace(move, outcome=Outcome.REFUSED, error=fault)
        await self._write_move(after)

    async def _cancel(self, plan: Evacuation) -> None:
        """Cancel what is open, each attempt once; one past its point of no return is waited for."""
        for move in reversed(plan.moves):  # who was begun last may wait for the place of one that is cancelled
            if not move.current or move.current in self._told_to_cancel:
                continue
            self._told_to_cancel.add(move.current)
            try:
                row = await asyncio.to_thread(self._around.store.get, move.current)
                await self._queue.cancel(row)
            except MigrationError as error:
                _log.info("attempt goes on", attempt=move.current, code=error.code, reason=error.message)
                if isinstance(error, Unreachable):
                    self._told_to_cancel.discard(move.current)

    async def _write_move(self, move: Move) -> None:
        await self._written(lambda plan: plan.with_move(move))

    async def _written(self, change: Change) -> Evacuation:
        async with self._turns:
            driver, now = self._around.driver, self._around.clock()
            after = await asyncio.to_thread(self._kept.drive, self._name, driver, now, change)
        self._tell(after)
        return after

    def _tell(self, plan: Evacuation) -> None:
        told = replace(plan, heartbeat=0.0)
        if told != self._told:
            self._told = told
            self._around.observe_evacuation(self._name)


@contextlib.contextmanager
def _unless_the_store_rests(evacuation: str) -> Iterator[None]:
    """Go on where the store cannot be used now: what was to be written is found again."""
    try:
        yield
    except Refused as error:
        if error.code != STORE_UNUSABLE:
            raise
        _log.warning("evacuation is not written down", evacuation=evacuation, reason=error.message)


def _looked_at(move: Move, rows: Mapping[str, Attempt], now: float, fraction: float) -> Move:
    """Return a move as its attempt, and those that retry that, stand."""
    if move.current and move.current not in rows:
        return replace(move, current="", attempts=move.attempts[:-1])
    while (row := rows.get(move.attempts[-1] if move.attempts else "")) is not None:
        after = followed(move, row, now, fraction)
        if after.attempts == move.attempts:
            return after
        move = after
    return move


def _without_attempt(plan: Evacuation, move: Move, told: Survey) -> Move | None:
    """Return a move with the outcome that it has without an attempt, as its host tells of its machines; else None."""
    here, leaves = any(one.machine == move.machine for one in told.owned), plan.kind is Kind.EVACUATE
    if leaves and move.machine in told.lost:
        return replace(move, outcome=Outcome.LOST, reason=f"was lost on {plan.host}: nobody has it whole")
    if here != leaves:
        why = f"is not on {plan.host}" if leaves else f"is on {plan.host} already"
        return replace(move, outcome=Outcome.COMPLETED, reason=why)
    return None


def _order(plan: Evacuation, move: Move, attempt: str, at: str) -> Order:
    among = plan.to if plan.kind is Kind.EVACUATE else (plan.host,)
    return Order(
        machine=move.machine,
        destination=among[0] if len(among) == 1 else ANY,
        policy=plan.policy,
        priority=plan.priority,
        attempt=attempt,
        retries=plan.retries,
        asked=replace(plan.asked, measure_ms=measure_ms(plan)),
        among=plan.to if len(among) > 1 else (),
        at=at,
    )
