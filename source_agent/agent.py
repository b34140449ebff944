"""The source agent: the attempts of one host, and what it does after it was away.

After a restart every journal of the host is read before anything is served: an attempt that was open and not released
ends in ABORTED, a released one is handed over again, a machine that owes a run state is brought to it. No machine is
started from a journal alone.
"""

import asyncio
import gc
import itertools
import os
from collections.abc import Callable, Coroutine
from typing import Final

from source_agent.ending import bring_to_owed
from source_agent.holdings import Holdings, machine_uuid, name_in
from source_agent.insisting import pause_before
from source_agent.machines import Machines
from source_agent.outgoing_attempt import OutgoingAttempt, Surroundings
from source_agent.progress import Outcome
from source_agent.terms import Terms
from source_agent.terms import decode as decode_terms
from source_agent.terms import encode as encode_terms
from vm_migration.errors import InvalidInput, Refused, Stale
from vm_migration.handover.custody import Custody
from vm_migration.handover.departure import begin
from vm_migration.handover.journals import Journals
from vm_migration.handover.ownership import run_confirmed, with_term
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.secret import draw
from vm_migration.handover.states import LEAVING, State
from vm_migration.machine.hypervisor import Hypervisor
from vm_migration.telemetry import logs

_KEPT_ATTEMPTS: Final = 64
_RECOVERY_PATIENCE: Final = 15.0
"""Seconds for which a start waits for what earlier attempts come to; what takes longer goes on beside the service."""
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
    ) -> None:
        self.host: Final = host
        self.hash_bytes_per_s: Final = hash_bytes_per_s
        self.holdings: Final = Holdings(journals, hypervisor)
        self.machines: Final = Machines(host, self.holdings, memory_budget)
        self.rates: Final[dict[str, float]] = {}
        self._surroundings: Final = surroundings
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
        holding = await self.holdings.look(self.holdings.hypervisor.of(machine_uuid(key.machine)))
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
        for machine in await asyncio.to_thread(self.holdings.journals.machines):
            if not await self._recovered(machine):
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

    async def _recovered(self, machine: str) -> bool:
        try:
            await self._recover_one(machine)
        except Exception as error:  # noqa: BLE001 - one machine that cannot be recovered must not keep the others away
            _log.error("machine could not be recovered", machine=machine, exc_info=error)
            return False
        return True

    async def _recover_later(self, machine: str) -> None:
        for retry in itertools.count():
            await asyncio.sleep(pause_before(retry, _RECOVER_EVERY))
            if await self._recovered(machine):
                return

    async def _until_settled(self, attempt: OutgoingAttempt) -> None:
        try:
            async with asyncio.timeout(_RECOVERY_PATIENCE):
                while attempt.open and attempt.record.state is not State.RELEASED:
                    await attempt.board.next(_RECOVERY_PATIENCE)
        except TimeoutError:
            _log.error("attempt of an earlier life is still open", attempt=attempt.attempt)

    async def _recover_one(self, machine: str) -> None:
        record = await asyncio.to_thread(self.holdings.journals.read_last, machine)
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
        attempt = OutgoingAttempt(custody, terms, around, self.holdings)
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
        task.add_done_callback(lambda done: self._ended(done, attempt))

    def _spawn(
        self, work: Coroutine[None, None, None], name: str, among: set[asyncio.Task[None]]
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        among.add(task)
        task.add_done_callback(among.discard)
        return task

    def _ended(self, task: asyncio.Task[None], attempt: OutgoingAttempt) -> None:
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
