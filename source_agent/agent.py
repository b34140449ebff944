"""The source agent: the attempts of one host, and what it does after it was away.

After a restart every journal of the host is read before anything is served, and the other hosts are asked whether one
has a higher claim on a machine that this host takes for its own. An attempt that was open and not released asks its
destination and ends, a released one is handed over again, a machine that owes a run state is brought to it. No machine
is started from a journal alone.
"""

import asyncio
import contextlib
import gc
import itertools
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

import msgspec

from source_agent.doubts import CONTRADICTION, OUTRANKED, Doubts, keep_still
from source_agent.elsewhere import Elsewhere
from source_agent.ending import bring_to_owed
from source_agent.holdings import Holdings, machine_uuid, name_in
from source_agent.insisting import pause_before
from source_agent.machines import Machines
from source_agent.outgoing_attempt import OutgoingAttempt, Surroundings
from source_agent.progress import Outcome
from source_agent.terms import Terms
from source_agent.terms import decode as decode_terms
from source_agent.terms import encode as encode_terms
from vm_migration.errors import InvalidInput, MigrationError, Refused, Stale, Unreachable
from vm_migration.handover.custody import Custody
from vm_migration.handover.departure import begin
from vm_migration.handover.journals import Journals
from vm_migration.handover.ownership import match, owe_run_state, run_confirmed, with_term
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.secret import draw
from vm_migration.handover.states import ABSENT, ARRIVING, LEAVING, State
from vm_migration.machine.hypervisor import Hypervisor
from vm_migration.machine.port import MachineError
from vm_migration.telemetry import logs

_KEPT_ATTEMPTS: Final = 64
_RECOVERY_PATIENCE: Final = 15.0
"""Seconds for which a start waits for what earlier attempts come to; what takes longer goes on beside the service."""
_HURRY_PATIENCE: Final = 5.0
"""Seconds for which somebody who wants a machine recovered now waits for what comes of it."""
_RECOVER_EVERY: Final = 10.0
_STOP_PATIENCE: Final = 5.0
_TELL_PATIENCE: Final = 2.0
_EMPTY: Final = frozenset({State.RETIRED, State.LOST, State.DESTROYED})
"""Nothing of the machine belongs to this side any more."""
_log: Final = logs.get(__name__)

MakeSurroundings = Callable[[str, str, int], Surroundings]
"""What an attempt (attempt, machine, epoch) needs of its agent."""


class SourceAgent:
    """Lets machines go."""

    def __init__(
        self,
        *,
        host: str,
        journals: Journals,
        hypervisor: Hypervisor,
        memory_budget: int,
        hash_bytes_per_s: float,
        surroundings: MakeSurroundings,
        elsewhere: Elsewhere | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Describe the agent; `elsewhere` are the other hosts of its site, `wall` tells seconds since 1970."""
        self.host: Final = host
        self.hash_bytes_per_s: Final = hash_bytes_per_s
        self.holdings: Final = Holdings(journals, hypervisor)
        self.doubts: Final = Doubts()
        self.machines: Final = Machines(host, self.holdings, memory_budget, self.doubts)
        self.rates: Final[dict[str, float]] = {}
        self._surroundings: Final = surroundings
        self._elsewhere: Final = elsewhere
        self._wall: Final = wall
        self._failures: Final[dict[str, str]] = {}
        self._running: Final[dict[str, asyncio.Task[None]]] = {}
        self._attempts: Final[dict[str, OutgoingAttempt]] = {}
        self._names: Final[dict[str, str]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._telling: Final[set[asyncio.Task[None]]] = set()
        self._retrying: Final[set[asyncio.Task[None]]] = set()
        self._stopping = False

    # attempts

    async def begin(self, key: AttemptKey, destination: str, terms: Terms) -> OutgoingAttempt:
        """Open an attempt, or answer with the one that is asked again.

        Raises:
            Refused: Another attempt is open, the machine is not as it is owed, or it is not this host's.
        """
        known = await self._known(key)
        if known is not None:
            return known
        if self._stopping:
            raise Refused("stopping", f"The source agent of {self.host} is being stopped", "Ask again in a moment")
        if destination == self.host:
            raise Refused("same-host", f"Machine is on {self.host} already", "Choose another destination")
        self.doubts.require_none(key.machine)
        holding = await self.holdings.look(self.holdings.hypervisor.of(machine_uuid(key.machine)))
        terms = msgspec.structs.replace(terms, began_at=self._wall())
        async with self.holdings.hold(key.machine) as custody:
            known = await self._known(key)
            if known is not None:  # asked twice at once
                return known
            if custody.record.owns:
                answer = await custody.answer()
                await custody.write(lambda record: run_confirmed(record, answer))
            secret, policy = draw(os.urandom), encode_terms(terms)
            record = await custody.write(
                lambda last: begin(
                    last, key, destination=destination, was_running=last.was_running, secret=secret, policy=policy
                )
            )
            if record.state is not State.OUTGOING:
                raise Refused("attempt-over", f"Attempt {key.attempt} came to {record.state}", "Begin a new one")
            self._names[key.attempt] = holding.specification.name
            attempt = self._admit(custody, terms, record)
        self._run(attempt.run(), attempt)
        return attempt

    async def _known(self, key: AttemptKey) -> OutgoingAttempt | None:
        attempt = self._attempts.get(key.attempt)
        if attempt is None:
            return None
        record = attempt.record
        if record.machine != key.machine or key.epoch not in (0, record.epoch):
            text = f"Attempt {key.attempt} is of machine {record.machine} at epoch {record.epoch}"
            raise Stale("stale-epoch", text, "Ask for its state")
        if attempt.open:
            await attempt.custody.write(lambda last: with_term(last, key.term))
        return attempt

    def attempt(self, key: AttemptKey) -> OutgoingAttempt:
        """Return an attempt of this agent's life.

        Raises:
            InvalidInput: It is not known here.
        """
        attempt = self._attempts.get(key.attempt)
        if attempt is None:
            raise InvalidInput(
                "unknown-attempt", f"Attempt {key.attempt} is not known at {self.host}", "See: viaduct list"
            )
        return attempt

    def knows(self, attempt: str) -> bool:
        """Tell whether an attempt is one of this agent's life."""
        return attempt in self._attempts

    def name_of(self, attempt: str) -> str:
        """Return the name of the machine that an attempt moves."""
        return self._names.get(attempt, "")

    def learn_rate(self, destination: str, bytes_per_s: float) -> None:
        """Remember what the link to a destination carried."""
        if bytes_per_s > 0:
            self.rates[destination] = bytes_per_s

    # its own life

    async def recover(self) -> None:
        """Go on with what an earlier life left, as far as the journals decide it; the silent are asked again later."""
        machines = await asyncio.to_thread(self.holdings.journals.machines)
        await self._yield_to_others(machines)
        for machine in machines:
            if not self.doubts.text(machine) and not await self._recovered(machine):
                self._spawn(self._recover_later(machine), f"recovery of {machine}", self._retrying)
        await asyncio.gather(*map(self._until_settled, list(self._attempts.values())))

    async def stop(self) -> None:
        """Cancel what can be cancelled, and wait for what cannot for a moment; the next start goes on with the rest."""
        self._stopping = True
        for attempt in self._attempts.values():
            if attempt.open:
                try:
                    attempt.cancel()
                except Refused as error:
                    _log.warning("attempt goes on without this agent", attempt=attempt.attempt, reason=error.message)
        for waiting, patience in ((self._tasks, _STOP_PATIENCE), (self._telling, _TELL_PATIENCE)):
            if waiting:
                await asyncio.wait(set(waiting), timeout=patience)
        rest = self._tasks | self._telling | self._retrying
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self.holdings.close()

    async def _yield_to_others(self, machines: Sequence[str]) -> None:
        """Pause every machine of which another host has a higher claim, before anything is done to it."""
        own = []
        for machine in machines:
            with contextlib.suppress(Unreachable):
                record = await asyncio.to_thread(self.holdings.journals.read_last, machine)
                if record.owns or record.state in (State.OUTGOING, State.STOPPED):
                    own.append(record)
        claims = {} if self._elsewhere is None else await self._elsewhere.claims(own)
        for machine, claim in claims.items():
            self.doubts.raise_(machine, OUTRANKED, str(claim))
            try:
                async with self.holdings.hold(machine) as custody:
                    if custody.record.owns:  # also for the next life, which may not hear of the claim
                        await custody.write(lambda last: owe_run_state(last, running=False))
                    await keep_still(custody)
            except (MigrationError, MachineError) as error:
                _log.error("machine could not be paused", machine=machine, reason=str(error))

    async def recovered(self, machine: str) -> bool:
        """Go on now with what an earlier life left of a machine, or with its attempt; tell whether that succeeded."""
        attempts = [each for each in self._attempts.values() if each.open and each.record.machine == machine]
        for attempt in attempts:
            attempt.hurry()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HURRY_PATIENCE):
                    while attempt.open and not attempt.unheard:
                        await attempt.board.next(_HURRY_PATIENCE)
        return bool(attempts) or await self._recovered(machine)

    async def taken(self, key: AttemptKey, highest_seen: int, reason: str) -> None:
        """Take a released machine back, on an operator's word; asked again, nothing changes.

        Raises:
            Refused: It is not released, or its process does not stand still at its stop.
            Stale, Missed: The call is not of the machine's last attempt.
        """
        attempt = self._attempts.get(key.attempt)
        last = await asyncio.to_thread(self.holdings.journals.read_last, key.machine)
        if last.state is State.TAKEN and last.attempt == key.attempt:
            async with self.holdings.hold(key.machine) as custody:
                await bring_to_owed(custody)
            return
        if attempt is None or attempt.record.state is not State.RELEASED:
            state = "not known in this life of its agent" if attempt is None else attempt.record.state
            text = f"Attempt {key.attempt} is {state}: only a RELEASED machine, at its stop, is taken back"
            raise Refused("not-released", text, "See: viaduct doctor")
        await attempt.custody.write(lambda record: match(record, key))
        task = self._running.get(key.attempt)
        if task is not None:  # it is handing the machine over at this moment
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        try:
            await attempt.take(highest_seen, reason)
        except BaseException:
            self._run(attempt.recover(), attempt)
            raise
        self.doubts.settle(key.machine, CONTRADICTION)
        await attempt.taken()

    async def journalled(self, key: AttemptKey, sequence: int) -> Record | None:
        """Return the last record of a machine's journal, durable where it speaks of that attempt; None without one.

        `sequence` is what the attempt's destination tells of its own journal, 0 where somebody else asks.

        Raises:
            Stale: The destination's journal was rolled back.
            Unreachable: Whether the last record is durable is not known.
        """
        attempt = self._attempts.get(key.attempt)
        if attempt is not None:
            attempt.note_peer(sequence)
        try:
            last = await asyncio.to_thread(self.holdings.journals.read_last, key.machine)
        except Unreachable:
            return None
        if last.state in ARRIVING or (last.attempt != key.attempt and last.highest_epoch <= key.epoch):
            return last
        async with self.holdings.hold(key.machine) as custody:  # what it says may be acted on: it must stand
            record = await custody.write(lambda record: record)  # which waits for a write under way
            if custody.uncertain:
                text = f"What the journal of machine {key.machine} says last may stand or not"
                raise Unreachable("journal-uncertain", text, "Ask again")
            if record.state in ABSENT:
                await self.holdings.let_go(custody)
            return record

    def complaint(self, machine: str) -> str:
        """Return what this agent waits for with a machine, or refuses to do; empty when nothing."""
        if text := self.doubts.text(machine):
            return text
        for attempt in self._attempts.values():
            late = attempt.record.state is State.RELEASED or attempt.unheard
            if attempt.open and late and attempt.record.machine == machine:
                return f"attempt {attempt.attempt} {attempt.board.progress.reason}"
        return self._failures.get(machine, "")

    async def _recovered(self, machine: str) -> bool:
        try:
            await self._recover_one(machine)
        except Exception as error:  # noqa: BLE001 - one machine that cannot be recovered must not keep the others away
            _log.error("machine could not be recovered", machine=machine, exc_info=error)
            self._failures[machine] = f"could not be recovered, and is tried again: {error}"
            return False
        self._failures.pop(machine, None)
        return True

    async def _recover_later(self, machine: str) -> None:
        for retry in itertools.count():
            await asyncio.sleep(pause_before(retry, _RECOVER_EVERY))
            if await self._recovered(machine):
                return

    async def _until_settled(self, attempt: OutgoingAttempt) -> None:
        try:
            async with asyncio.timeout(_RECOVERY_PATIENCE):
                while attempt.open and attempt.record.state is not State.RELEASED and not attempt.unheard:
                    await attempt.board.next(_RECOVERY_PATIENCE)
        except TimeoutError:
            _log.error("attempt of an earlier life is still open", attempt=attempt.attempt)

    async def _recover_one(self, machine: str) -> None:
        record = await asyncio.to_thread(self.holdings.journals.read_last, machine)
        if record.attempt in self._attempts:
            return
        left = record.state in (State.ABORTED, State.LOST, State.RETIRED) and record.policy
        if record.state in LEAVING or left:
            async with self.holdings.hold(machine) as custody:
                record = custody.record
                terms = decode_terms(record.policy)
                attempt = self._admit(custody, terms, record)
                self._names[attempt.attempt] = name_in(record)
            if record.state in LEAVING:
                self._run(attempt.recover(), attempt)
            else:
                attempt.show_outcome()
                self._tell(attempt)
        if record.owns and not record.run_confirmed:
            async with self.holdings.hold(machine) as custody:
                record = await bring_to_owed(custody)
        if record.state in _EMPTY:
            await self._sweep(record)

    async def _sweep(self, record: Record) -> None:
        """Free what a machine that is not here any more has left, where an earlier life did not come to it."""
        place = self.holdings.hypervisor.of_text(record.machine)
        instance = place.instance()
        named = instance is not None and instance.name == record.instance
        if named or (instance is not None and record.state is State.DESTROYED):
            _log.warning("freeing what is left of a machine", machine=record.machine, state=record.state)
            await self.holdings.hypervisor.take_away(place, None)

    def _admit(self, custody: Custody, terms: Terms, record: Record) -> OutgoingAttempt:
        around = self._surroundings(record.attempt or "", record.machine, record.epoch)
        attempt = OutgoingAttempt(custody, terms, around, self.holdings, self.doubts)
        while len(self._attempts) >= _KEPT_ATTEMPTS:
            oldest = next((key for key, each in self._attempts.items() if not each.open), None)
            if oldest is None:
                break
            del self._attempts[oldest]
            self._names.pop(oldest, None)
        self._attempts[attempt.attempt] = attempt
        return attempt

    def _run(self, work: Coroutine[None, None, None], attempt: OutgoingAttempt) -> None:
        task = self._spawn(work, f"attempt {attempt.attempt}", self._tasks)
        self._running[attempt.attempt] = task
        task.add_done_callback(lambda done: self._ended(done, attempt))

    def _spawn(
        self, work: Coroutine[None, None, None], name: str, among: set[asyncio.Task[None]]
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        among.add(task)
        task.add_done_callback(among.discard)
        return task

    def _ended(self, task: asyncio.Task[None], attempt: OutgoingAttempt) -> None:
        if self._running.get(attempt.attempt) is task:
            del self._running[attempt.attempt]
        if not task.cancelled() and task.exception() is not None:
            _log.error("attempt's task failed", attempt=attempt.attempt, exc_info=task.exception())
        progress = attempt.board.progress
        if progress.outcome is not Outcome.COMPLETED:
            # Task groups and timeouts leave cycles of tracebacks and frames (cpython#114198), and the frames of an
            # attempt that was cut off hold the mapping of the machine's RAM.
            gc.collect()
        elif progress.bulk_ms > 0:
            self.learn_rate(attempt.record.peer, progress.wire_bytes * 1000 / progress.bulk_ms)
        if not attempt.open:
            self._tell(attempt)

    def _tell(self, attempt: OutgoingAttempt) -> None:
        self._spawn(self._told(attempt), f"news of {attempt.attempt}", self._telling)

    async def _told(self, attempt: OutgoingAttempt) -> None:
        try:
            await attempt.tell()
        except Exception as error:  # noqa: BLE001 - the attempt is over; its news can wait for the next start
            _log.error("destination could not be told", attempt=attempt.attempt, exc_info=error)
        if attempt.record.state in _EMPTY:
            await self.holdings.let_go(attempt.custody)
