"""The source agent: the attempts of one host, and what a person asks of it when something went wrong.

What an earlier life left is gone on with before anything is served: source_agent.restarting.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from source_agent.attempts import MOST_OPEN, AnyAttempt, Attempts, MakeSurroundings
from source_agent.doubts import CONTRADICTION, Doubts
from source_agent.elsewhere import Elsewhere
from source_agent.ending import bring_to_owed
from source_agent.holdings import Holdings, machine_uuid
from source_agent.machines import Machines
from source_agent.outgoing_attempt import OutgoingAttempt
from source_agent.readings import departure_readings
from source_agent.restarting import Restarting
from source_agent.terms import Terms, encode
from source_agent.track_record import TrackRecord
from vm_migration.daemon.host_burden import Burden
from vm_migration.daemon.host_offer import HostOffer
from vm_migration.errors import InvalidInput, Refused, Stale, Unreachable
from vm_migration.handover.departure import begin
from vm_migration.handover.evidence import InstanceGone
from vm_migration.handover.journal_errors import JournalUncertain
from vm_migration.handover.journals import Journals
from vm_migration.handover.ownership import match, run_confirmed, with_term
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.secret import draw
from vm_migration.handover.states import ABSENT, ARRIVING, State
from vm_migration.machine.hypervisor import Hypervisor
from vm_migration.machine.succession import Succession
from vm_migration.telemetry import logs
from vm_migration.telemetry.gauges import Reading

_TAKEN_LOOK: Final = 1.0
_log: Final = logs.get(__name__)


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
        succession: Succession | None = None,
        most_attempts: int = MOST_OPEN,
        offer: HostOffer | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Describe the agent; `elsewhere` are the other hosts of its site, `wall` tells seconds since 1970."""
        self.host: Final = host
        self.hash_bytes_per_s: Final = hash_bytes_per_s
        self.holdings: Final = Holdings(journals, hypervisor, succession)
        self.doubts: Final = Doubts()
        self.machines: Final = Machines(host, self.holdings, memory_budget, self.doubts, offer=offer)
        self._attempts: Final = Attempts(self.holdings, self.doubts, surroundings, most_attempts)
        self._restarting: Final = Restarting(self.holdings, self._attempts, self.doubts, elsewhere)
        self._wall: Final = wall
        self._stopping = False

    async def recover(self) -> None:
        """Go on with what an earlier life left, as far as the journals decide it; the silent are asked again later."""
        await self._restarting.all()

    async def stop(self) -> None:
        """Cancel what can be cancelled, and wait for what cannot for a moment; the next start goes on with the rest."""
        self._stopping = True
        await self._restarting.stop()
        await self._attempts.stop()
        await self.holdings.close()

    # attempts

    async def begin(self, key: AttemptKey, destination: str, terms: Terms) -> AnyAttempt:
        """Open an attempt, or answer with the one that is asked again; only an update goes to this host itself.

        Raises:
            Refused: Another attempt is open, the machine is not as it is owed, or it is not this host's.
        """
        known = await self._known(key)
        if known is not None:
            return known
        if self._stopping:
            raise Refused("stopping", f"The source agent of {self.host} is being stopped", "Ask again in a moment")
        if destination == self.host and terms.update is None:
            raise Refused("same-host", f"Machine is on {self.host} already", "Choose another destination")
        with self._attempts.beginning():
            return await self._begun(key, destination, terms)

    async def _begun(self, key: AttemptKey, destination: str, terms: Terms) -> AnyAttempt:
        self.doubts.require_none(key.machine)
        holding = await self.holdings.look(self.holdings.hypervisor.of(machine_uuid(key.machine)))
        terms = msgspec.structs.replace(terms, began_at=self._wall())
        async with self.holdings.hold(key.machine) as custody:
            known = await self._known(key)
            if known is not None:  # asked twice at once
                return known
            if custody.record.owns:
                answer = await custody.answer_or_proof()
                if isinstance(answer, InstanceGone):
                    text = f"The process of machine {key.machine} has ended, and its memory with it"
                    raise Refused("machine-gone", text, "Clear up what is left of it: viaduct machine destroy")
                await custody.write(lambda record: run_confirmed(record, answer))
            secret, policy = draw(os.urandom), encode(terms)
            try:
                record = await custody.write(
                    lambda last: begin(
                        last, key, destination=destination, was_running=last.was_running, secret=secret, policy=policy
                    )
                )
            except (JournalUncertain, asyncio.CancelledError):
                self._restarting.soon(key.machine)  # OUTGOING may stand: nobody may ask for it again
                raise
            if record.state is not State.OUTGOING:
                raise Refused("attempt-over", f"Attempt {key.attempt} came to {record.state}", "Begin a new one")
            attempt = self._attempts.admit(custody, terms, holding.specification.name)
        self._attempts.drive(attempt, attempt.run())
        return attempt

    async def _known(self, key: AttemptKey) -> AnyAttempt | None:
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

    def attempt(self, key: AttemptKey) -> AnyAttempt:
        """Return an attempt of this agent's life.

        Raises:
            InvalidInput: It is not known here.
        """
        attempt = self._attempts.get(key.attempt)
        if attempt is None:
            text = f"Attempt {key.attempt} is not known at {self.host}"
            raise InvalidInput("unknown-attempt", text, "See: viaduct list")
        return attempt

    def readings(self) -> Sequence[Reading]:
        """Return the gauges of what is leaving, or updated."""
        return departure_readings(self._attempts)

    def burden(self) -> Burden:
        """Return how many machines are leaving at this moment."""
        return Burden(self._attempts.open)

    def knows(self, attempt: str) -> bool:
        """Tell whether an attempt is one of this agent's life."""
        return self._attempts.get(attempt) is not None

    def name_of(self, attempt: str) -> str:
        """Return the name of the machine that an attempt moves."""
        return self._attempts.name_of(attempt)

    def track_record_of(self, kind: str) -> TrackRecord:
        """Return what the last attempts of machines of a kind showed of the links, and of this agent."""
        return self._attempts.track_records.of(kind)

    # what a person asks when something went wrong

    async def recovered(self, machine: str, files_gone: str = "") -> None:
        """Go on now with what an earlier life left of a machine, or with its attempt that waits.

        `files_gone` is who vouches that the files are gone in which it waited: where they are not there, it is lost.

        Raises:
            Unreachable: Nothing could be done on that word.
        """
        if not files_gone:
            await self._restarting.now(machine)
            return
        _log.warning("files of a machine that waits are said to be gone", machine=machine, word=files_gone)
        with self.holdings.succession.believing(machine_uuid(machine)):
            if not await self._restarting.now(machine):
                text = f"Another host has a higher claim on machine {machine}, and it could not be paused here"
                hint = "It is tried again without it: see viaduct doctor, and say so again"
                raise Unreachable("process-silent", f"{text}: nothing was done on that word", hint)

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
        if not isinstance(attempt, OutgoingAttempt) or attempt.record.state is not State.RELEASED:
            state = "not known in this life of its agent" if attempt is None else attempt.record.state
            text = f"Attempt {key.attempt} is {state}: only a RELEASED machine, at its stop, is taken back"
            raise Refused("not-released", text, "See: viaduct doctor")
        await attempt.custody.write(lambda record: match(record, key))
        await self._attempts.halt(attempt)  # it is handing the machine over at this moment
        try:
            await attempt.take(highest_seen, reason)
        except BaseException:
            self._attempts.drive(attempt, attempt.not_taken())
            raise
        self.doubts.settle(key.machine, CONTRADICTION)
        self._attempts.drive(attempt, attempt.taken())  # it is run also where whoever asked has gone away
        while attempt.open:
            await attempt.board.next(_TAKEN_LOOK)

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
        for attempt in self._attempts:
            late = attempt.record.state is State.RELEASED or attempt.unheard
            if attempt.open and late and attempt.record.machine == machine:
                return f"attempt {attempt.attempt} {attempt.board.progress.reason}"
        return self._restarting.failures.get(machine, "")
