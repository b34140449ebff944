"""The orchestrator daemon: a queue over the store, and the API for people and their tools.

::

    Submit -> row in the store (queued) -> a slot at both hosts -> Drive -> end
    start  -> every open row that nobody drives is claimed with the next term, and driven on -> end, or unresolved

The store is the queue: what is in memory is only which rows this process drives. A row's change wakes its watchers.
What could not be resolved is asked about again, later each time, for as long as it is open.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from orchestrator import steering
from orchestrator.admission import Order, admit
from orchestrator.attempt import Attempt, IllegalPhase, Outcome, Phase
from orchestrator.claims import Claims
from orchestrator.drive import Drive
from orchestrator.driven_row import give_back
from orchestrator.entrance import Entrance
from orchestrator.known_hosts import KnownHosts
from orchestrator.learning import Listing, find, listing
from orchestrator.link_shares import LinkShares
from orchestrator.looking import changes
from orchestrator.news import News
from orchestrator.pruning import Pruning
from orchestrator.queueing import Slots, may_start, waits_for
from orchestrator.retrying import settled_destination, wait_left
from orchestrator.sending import Senders
from orchestrator.slot_book import SlotBook
from orchestrator.store.claim import HEARTBEAT_SECONDS, is_held
from orchestrator.store.parts import parts
from orchestrator.store.store import OpenRow
from orchestrator.surroundings import Surroundings
from orchestrator.updating.drive import drive_of
from vm_migration.errors import MigrationError, Refused
from vm_migration.telemetry import logs

QUEUE_LIMIT: Final = 1000
ASK_AGAIN_SECONDS: Final = 5.0
ASK_AGAIN_LONGEST: Final = 300.0
ASK_AGAIN_PATIENCE: Final = 5.0
_TOGETHER_SECONDS: Final = 0.02
"""Of many that come, or end, within so long all are decided about once."""
_CLAIMED_AT_ONCE: Final = 50
"""Rows: others may write between two transactions."""
_WAITING: Final = frozenset({Phase.QUEUED})
_log: Final = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class AskAgain:
    """When to ask about an unresolved attempt again, in seconds since 1970, and how often that has been in vain."""

    due: float
    failures: int


class AttemptQueue:
    """Drives what is in the store while the context is entered."""

    def __init__(
        self, around: Surroundings, *, sole: bool = False, slots: SlotBook | None = None, adopts: bool = True
    ) -> None:
        """Take what a driver works with; `sole` says that nobody else has its name (orchestrator.store.exclusive).

        One that does not adopt drives what is submitted to it, and nothing that others left.
        """
        self._sole = sole
        self._adopts = adopts
        self._slots = SlotBook(Slots()) if slots is None else slots
        self._served: dict[str, float] = {}
        self._pruning = Pruning(around.store.prune)
        self._changes = News()
        self._ends = News()
        self._links = LinkShares(around.agents, around.bandwidth, self.look_again)
        self._senders = Senders(self.look_again)
        self._around = replace(
            around,
            observe=self._observe,
            terms=self._links.terms,
            preparing=self._senders.preparations.one,
            turn=self._senders.turn,
            claims=Claims(around.store, around.clock),
            known=KnownHosts(around.agents),
        )
        self._tell = around.observe
        self._drives: dict[str, Drive] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, Attempt] = {}
        self._unresolved: dict[str, AskAgain] = {}
        self._backing_off: dict[str, asyncio.Task[None]] = {}
        self._entrance = Entrance()
        self._wake = asyncio.Event()
        self._unexplained = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Take over what nobody drives, and start."""
        await self._stack.enter_async_context(self._group)
        if self._adopts:
            await self._take_over(await asyncio.to_thread(self._around.store.open_rows), sole=self._sole)
        self._scheduler = self._group.create_task(self._schedule(), name="scheduler")
        self._explainer = self._group.create_task(self._explain(), name="explainer")
        self._keeper = self._group.create_task(self._keep(), name="keeper")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop driving; the agents go on alone, and the next driver takes the rows over."""
        held = [*self._waiting.values(), *(drive.attempt for drive in self._drives.values())]
        own = (self._scheduler, self._explainer, self._keeper)
        for task in (*own, *self._tasks.values(), *self._backing_off.values()):
            task.cancel()
        await self._stack.aclose()
        for attempt in held:
            await asyncio.to_thread(give_back, self._around.store, attempt)

    async def submit(self, order: Order) -> Attempt:
        """Check an order on both sides and queue it.

        Raises:
            MigrationError: As `admit`; Refused when the queue is full.
        """
        if len(self._waiting) + self._entrance.waiting >= QUEUE_LIMIT:
            raise Refused("queue-full", f"{QUEUE_LIMIT} attempts are waiting", "Wait, or cancel some")
        async with self._entrance.place():
            attempt = await admit(self._around, order, check=True)
        if not attempt.ended and attempt.attempt not in self._drives:
            self._enqueue(attempt)
        self._observe(attempt)
        return attempt

    async def watch(self, attempt_id: str) -> AsyncGenerator[Attempt, None]:
        """Yield an attempt at each change, and now and then without one, until it ends or is left unresolved."""
        while True:
            seen = self.version
            row = await self._row(attempt_id)
            yield row
            if row.ended or (row.outcome is not None and not row.driver):
                return
            await self.changed(seen, HEARTBEAT_SECONDS, {attempt_id})

    @property
    def version(self) -> int:
        """Grows with every change of an attempt that this process drives."""
        return self._changes.count

    @property
    def ends(self) -> int:
        """Grows when an attempt is driven no further, and when somebody is to look."""
        return self._ends.count

    async def changed(self, seen: int, seconds: float, of: Collection[str] | None = None) -> None:
        """Return when one of some subjects, or any, changed since a version was seen, or after so many seconds."""
        await self._changes.of(of, seen, seconds)

    async def ended(self, seen: int, seconds: float, of: Collection[str]) -> None:
        """Return when there was an end of one of some subjects since so many were seen, or after so many seconds."""
        await self._ends.of(of, seen, seconds)

    def touch(self, subject: str, *, end: bool = False) -> None:
        """Wake whoever waits for a change of an attempt or an evacuation, or for an end as well."""
        self._changes.tell(subject)
        if end:
            self._ends.tell(subject)

    def look_again(self) -> None:
        """Decide anew who may start."""
        self._wake.set()

    def watch_elsewhere(self, attempt: Attempt) -> AsyncGenerator[Attempt, None]:
        """Yield an attempt that only its hosts know, until it ends."""
        return changes(self._around, attempt, HEARTBEAT_SECONDS / 2)

    async def attempts(self, *, everything: bool, hosts: bool = True) -> Listing:
        """Return open attempts, or all: those of the store, and with `hosts` those that only a host knows."""
        found = await listing(self._around, everything=everything, hosts=hosts)
        return replace(found, attempts=tuple(map(self._as_driven, found.attempts)))

    async def find(self, start: str) -> Attempt:
        """Return the attempt whose UUID starts so, of the store or of a host."""
        return self._as_driven(await find(self._around, start))

    async def cancel(self, attempt: Attempt) -> Attempt:
        """Cancel an attempt, queued or driven."""
        if attempt.attempt in self._waiting:
            row = await steering.cancel(self._around, attempt)
            if attempt.attempt in self._waiting:  # it has not been started meanwhile
                self._start(row)  # and ends before it begins
            return row
        drive = self._drives.get(attempt.attempt)
        if drive is not None and not drive.past_return:
            drive.request_cancel()  # at once: what its source answers may take longer
        return await steering.cancel(self._around, attempt)

    async def force(self, attempt: Attempt) -> Attempt:
        """Have an attempt switch over at once."""
        return await steering.force(self._around, attempt)

    async def tune(self, attempt: Attempt, *, downtime_limit_ms: int, max_bandwidth_bytes_per_s: int) -> Attempt:
        """Change an attempt's limits; its bandwidth stays within its share of the links."""
        tuned = await steering.tune(
            self._around,
            attempt,
            downtime_limit_ms=downtime_limit_ms,
            max_bandwidth_bytes_per_s=max_bandwidth_bytes_per_s,
            within=self._links.within,
        )
        if max_bandwidth_bytes_per_s:
            self._links.tuned(attempt, max_bandwidth_bytes_per_s)
        self.look_again()  # others may get less, or more
        return tuned

    # the queue

    async def _row(self, attempt_id: str) -> Attempt:
        drive = self._drives.get(attempt_id)
        if drive is not None and not drive.attempt.ended:
            return drive.attempt  # its figures are newer than what is written
        return await asyncio.to_thread(self._around.store.get, attempt_id)

    def _as_driven(self, row: Attempt) -> Attempt:
        """Return an attempt of the store, or of a host, as this process knows it where it drives it."""
        drive = self._drives.get(row.attempt)
        return row if drive is None or drive.attempt.ended else drive.attempt

    async def _take_over(self, rows: Iterable[OpenRow], *, sole: bool = False) -> None:
        """Claim what nobody else drives, many rows at a time, and begin with each part before the next is claimed."""
        for part in parts([row.attempt for row in rows], _CLAIMED_AT_ONCE):
            for claimed in await self._claimed(part, sole=sole):
                subject = {"machine": claimed.machine, "attempt": claimed.attempt, "epoch": claimed.epoch}
                _log.info("attempt taken over", **subject, term=claimed.term, phase=claimed.phase.value)
                if claimed.phase in _WAITING:
                    self._enqueue(claimed)
                else:
                    self._start(claimed)

    async def _claimed(self, attempts: Sequence[str], *, sole: bool) -> Sequence[Attempt]:
        claim = functools.partial(self._around.store.claim_all, sole=sole)
        try:
            return await asyncio.to_thread(claim, attempts, self._around.driver, self._around.clock())
        except Refused as error:  # the store rests: what is left is found again
            _log.warning("attempts are not taken over yet", code=error.code, reason=error.message)
            return ()

    def _enqueue(self, attempt: Attempt) -> None:
        self._waiting[attempt.attempt] = attempt
        if attempt.retry.choose or wait_left(attempt.retry.not_before, self._around.clock()):
            task = self._group.create_task(self._back_off(attempt), name=f"back-off of {attempt.attempt}")
            self._backing_off[attempt.attempt] = task
        self._wake.set()

    async def _back_off(self, attempt: Attempt) -> None:
        """Let a retry wait, and choose its destination, before it waits for its turn there."""
        try:
            await asyncio.sleep(wait_left(attempt.retry.not_before, self._around.clock()))
            chosen = await settled_destination(self._around, attempt)
            row = await asyncio.to_thread(self._around.store.save, chosen, self._around.clock())
        except MigrationError as error:  # its preflight asks again, and says it
            logs.bind(machine=attempt.machine, attempt=attempt.attempt, epoch=attempt.epoch)
            _log.warning("no destination was chosen", code=error.code, reason=error.message)
        else:
            if attempt.attempt in self._waiting:
                self._waiting[attempt.attempt] = row
                self._observe(row)
        self._backing_off.pop(attempt.attempt, None)
        self._wake.set()

    async def _schedule(self) -> None:
        while True:
            running = self._running()
            chosen = may_start(self._ready(), running, self._slots.opening(), self._served)
            for attempt in chosen:
                self._served[attempt.source] = self._around.clock()
                self._start(attempt)
            self._senders.let(running, self._slots.now(), self._served)
            self._share_links()
            self._unexplained.set()
            await self._wake.wait()
            await asyncio.sleep(_TOGETHER_SECONDS)  # more may come at once
            self._wake.clear()

    async def _explain(self) -> None:
        """Write down what each waiting attempt waits for, beside the scheduler: that may take long where many wait."""
        while True:
            await self._unexplained.wait()
            self._unexplained.clear()
            running = self._running()
            slots = self._slots.opening()
            for attempt in self._ready():
                reason = waits_for(attempt, running, slots)
                if reason != attempt.reason and self._waiting.get(attempt.attempt) is attempt:
                    await self._give_reason(replace(attempt, reason=reason))

    async def _give_reason(self, attempt: Attempt) -> None:
        with contextlib.suppress(Refused, IllegalPhase):  # taken over or started meanwhile, or the store rests
            row = await asyncio.to_thread(self._around.store.save, attempt, self._around.clock())
            if attempt.attempt in self._waiting:
                self._waiting[attempt.attempt] = row
                self._observe(row)

    def _share_links(self) -> None:
        moving = (drive.attempt for drive in self._drives.values() if not drive.attempt.asked.update)
        for tuning in self._links.due(moving, self._senders.waits):
            self._group.create_task(self._links.tell(tuning), name=f"tune {tuning.attempt.attempt}")

    def _running(self) -> list[Attempt]:
        driven = (drive.attempt for drive in self._drives.values())
        return [one for one in driven if one.outcome != Outcome.UNRESOLVED]

    def _ready(self) -> list[Attempt]:
        return [one for one in self._waiting.values() if one.attempt not in self._backing_off]

    async def _keep(self) -> None:
        """Keep the claims of waiting attempts fresh, look for rows that others left, and prune."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)  # claims go stale by the clock
            try:
                await self._look_after(self._around.clock())
            except Refused as error:
                _log.warning("store was not looked after", code=error.code, reason=error.message)

    async def _look_after(self, now: float) -> None:
        store = self._around.store
        self._share_links()
        for attempt_id in await asyncio.to_thread(store.renew, list(self._waiting.values()), now):
            self._waiting.pop(attempt_id, None)  # somebody else has taken it over
        rows = await asyncio.to_thread(store.open_rows)
        for row in rows:
            if row.cancel_requested and (attempt := self._waiting.get(row.attempt)) is not None:
                self._start(replace(attempt, cancel_requested=True))
        if not self._adopts:
            return
        await self._take_over(row for row in rows if self._is_left(row, now))
        await self._pruning.at(now)

    def _is_left(self, row: OpenRow, now: float) -> bool:
        """Say whether nobody drives a row; one that was left unresolved is, until it is time to ask again."""
        if row.attempt in self._drives or row.attempt in self._waiting or is_held(row, now):
            return False
        again = self._unresolved.get(row.attempt)
        return row.outcome is None or again is None or again.due <= now

    def _start(self, attempt: Attempt) -> None:
        self._waiting.pop(attempt.attempt, None)
        if (waits := self._backing_off.pop(attempt.attempt, None)) is not None:
            waits.cancel()
        again = attempt.outcome == Outcome.UNRESOLVED
        around = replace(self._around, patience=ASK_AGAIN_PATIENCE) if again else self._around
        drive = self._drives[attempt.attempt] = drive_of(attempt, around)
        task = self._group.create_task(self._drive(drive), name=f"drive {attempt.attempt}")
        self._tasks[attempt.attempt] = task

    async def _drive(self, drive: Drive) -> None:
        try:
            ended = await drive.run()
            self._note_unresolved(ended)
            if drive.successor is not None:
                self._enqueue(drive.successor)
            _log.info("attempt ended", attempt=ended.attempt, outcome=str(ended.outcome))
        except (MigrationError, ExceptionGroup) as error:
            _log.error("drive failed", attempt=drive.attempt.attempt, exc_info=error)
        finally:
            del self._drives[drive.attempt.attempt], self._tasks[drive.attempt.attempt]
        self._wake.set()
        self._tell(drive.attempt)
        self.touch(drive.attempt.attempt, end=True)

    def _note_unresolved(self, attempt: Attempt) -> None:
        again = self._unresolved.pop(attempt.attempt, None)
        if attempt.outcome == Outcome.UNRESOLVED:
            failures = 1 if again is None else again.failures + 1
            wait = min(ASK_AGAIN_SECONDS * 2.0 ** (failures - 1), ASK_AGAIN_LONGEST)
            self._unresolved[attempt.attempt] = AskAgain(self._around.clock() + wait, failures)

    def _observe(self, attempt: Attempt) -> None:
        self._tell(attempt)
        self.touch(attempt.attempt)
        self._senders.hear(attempt)
