"""The attempts of one agent's life: known by their ids, each with the task that drives it and the news of its end."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from source_agent.doubts import Doubts
from source_agent.holdings import Holdings
from source_agent.outgoing_attempt import OutgoingAttempt
from source_agent.readings import note_end
from source_agent.surroundings import Surroundings
from source_agent.terms import Terms
from source_agent.track_record import TrackRecords, shown_by
from source_agent.updating.attempt import UpdateAttempt
from vm_migration.errors import Refused
from vm_migration.handover.custody import Custody
from vm_migration.handover.headings import kind_in
from vm_migration.handover.states import State
from vm_migration.telemetry import logs, traces
from vm_migration.transfer.convergence import DEVICE_BYTES_PER_S

MOST_OPEN: Final = 16
"""Attempts at a time."""
_KEPT: Final = 64
_STOP_PATIENCE: Final = 5.0
_TELL_PATIENCE: Final = 2.0
GONE: Final = frozenset({State.RETIRED, State.LOST, State.DESTROYED})
"""Nothing of the machine belongs to this side any more."""
_log: Final = logs.get(__name__)

AnyAttempt = OutgoingAttempt | UpdateAttempt
MakeSurroundings = Callable[[str, str, int], Surroundings]
"""What an attempt (attempt, machine, epoch) needs of its agent."""


class Attempts:
    """Keeps the open ones, and the last of those that ended."""

    def __init__(
        self, holdings: Holdings, doubts: Doubts, surroundings: MakeSurroundings, most_open: int = MOST_OPEN
    ) -> None:
        self._most_open: Final = most_open
        self._beginning = 0
        self.track_records: Final = TrackRecords()
        self._holdings: Final = holdings
        self._doubts: Final = doubts
        self._surroundings: Final = surroundings
        self._attempts: Final[dict[str, AnyAttempt]] = {}
        self._names: Final[dict[str, str]] = {}
        self._driving: Final[dict[str, asyncio.Task[None]]] = {}
        self._telling: Final[set[asyncio.Task[None]]] = set()

    def __iter__(self) -> Iterator[AnyAttempt]:
        """Yield all of them."""
        return iter(list(self._attempts.values()))

    def get(self, attempt: str | None) -> AnyAttempt | None:
        """Return an attempt of this life."""
        return self._attempts.get(attempt or "")

    def name_of(self, attempt: str) -> str:
        """Return the name of the machine that an attempt moves."""
        return self._names.get(attempt, "")

    @property
    def open(self) -> int:
        """How many are open, or being opened."""
        return self._beginning + sum(each.open for each in self)

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Keep a place for an attempt that is being opened; what an earlier life left open needs none.

        Raises:
            Refused: Too many are open.
        """
        if self.open >= self._most_open:
            text = f"{self._most_open} attempts are open at this host already"
            raise Refused("too-many-attempts", text, "Wait for one to end, or raise [limits] attempts")
        self._beginning += 1
        try:
            yield
        finally:
            self._beginning -= 1

    def admit(self, custody: Custody, terms: Terms, name: str) -> AnyAttempt:
        """Keep an attempt that is a journal's last, of a machine of that name; the oldest that ended makes way."""
        record = custody.record
        around = self._surroundings(record.attempt or "", record.machine, record.epoch)
        shown = self.track_records.of(kind_in(record))
        around = replace(
            around,
            fixed_standstill_ms=shown.fixed_ms(record.peer),
            device_bytes_per_s=shown.device_bytes_per_s(record.peer) or DEVICE_BYTES_PER_S,
        )
        attempt = self._of_its_kind(custody, terms, around)
        while len(self._attempts) >= _KEPT:
            oldest = next((key for key, each in self._attempts.items() if not each.open), None)
            if oldest is None:
                break
            del self._attempts[oldest]
            self._names.pop(oldest, None)
        self._attempts[attempt.attempt] = attempt
        self._names[attempt.attempt] = name
        return attempt

    def _of_its_kind(self, custody: Custody, terms: Terms, around: Surroundings) -> AnyAttempt:
        kind = OutgoingAttempt if terms.update is None else UpdateAttempt
        return kind(custody, terms, around, self._holdings, self._doubts)

    def drive(self, attempt: AnyAttempt, work: Coroutine[None, None, None]) -> None:
        """Have an attempt come to its end, and its end told."""
        record = attempt.record
        subject: dict[str, str | int] = {"machine": record.machine, "attempt": attempt.attempt, "epoch": record.epoch}
        with logs.bound(**subject):
            task = asyncio.create_task(traces.spanned("attempt", subject, work), name=f"attempt {attempt.attempt}")
            task.add_done_callback(lambda _: work.close())  # a task that was cancelled before it began leaves it
            task.add_done_callback(lambda done: self._ended(done, attempt))
        self._driving[attempt.attempt] = task

    async def halt(self, attempt: AnyAttempt) -> None:
        """Have nobody drive an attempt any more; what it was doing is over when this returns."""
        task = self._driving.get(attempt.attempt)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def tell(self, attempt: AnyAttempt) -> None:
        """Have an attempt's destination told how it ended."""
        task = asyncio.create_task(self._told(attempt), name=f"news of {attempt.attempt}")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def stop(self) -> None:
        """Cancel what can be cancelled, and wait for what cannot for a moment."""
        for attempt in self:
            if attempt.open:
                try:
                    attempt.cancel()
                except Refused as error:
                    record = attempt.record
                    subject = {"machine": record.machine, "attempt": attempt.attempt, "epoch": record.epoch}
                    _log.warning("attempt goes on without this agent", **subject, reason=error.message)
        if self._driving:
            await asyncio.wait(set(self._driving.values()), timeout=_STOP_PATIENCE)
        if self._telling:
            await asyncio.wait(set(self._telling), timeout=_TELL_PATIENCE)
        rest = {*self._driving.values(), *self._telling}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None], attempt: AnyAttempt) -> None:
        if self._driving.get(attempt.attempt) is task:
            del self._driving[attempt.attempt]
        if not task.cancelled() and task.exception() is not None:
            _log.error("attempt's task failed", attempt=attempt.attempt, exc_info=task.exception())
        if isinstance(attempt, UpdateAttempt):  # which moved nothing, and has mapped no memory
            if not attempt.open:
                note_end(attempt.board.progress, attempt.terms)
                self.tell(attempt)
            return
        # Task groups and timeouts leave cycles of tracebacks and frames (cpython#114198), and the frames of an attempt
        # that met an error hold the mapping of the machine's RAM, also where it completed in spite of that.
        gc.collect()
        progress = attempt.board.progress
        shown = shown_by(progress, attempt.terms.max_bandwidth_bytes_per_s)
        if shown is not None:
            self.track_records.of(kind_in(attempt.record)).note(attempt.record.peer, shown)
        if not attempt.open:
            note_end(progress, attempt.terms)
            self.tell(attempt)

    async def _told(self, attempt: AnyAttempt) -> None:
        try:
            await attempt.tell()
        except Exception as error:  # noqa: BLE001 - the attempt is over; its news can wait for the next start
            _log.error("destination could not be told", attempt=attempt.attempt, exc_info=error)
        if attempt.record.state in GONE:
            await self._holdings.let_go(attempt.custody)
