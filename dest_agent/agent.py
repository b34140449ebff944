"""The destination agent: takes machines in, one attempt for each machine at a time."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from dest_agent.admission import MOST_ARRIVALS, Admission, specification_in
from dest_agent.afterwards import Afterwards
from dest_agent.arriving_machine import ArrivingMachine, BeforeReady, Finished, nothing_before_ready
from dest_agent.complaints import Complaints
from dest_agent.holdings import Holdings
from dest_agent.incoming_attempt import IncomingAttempt
from dest_agent.preparing import bring_up, give_up, journal_prepared
from dest_agent.reporting import report
from dest_agent.restart import Restart
from dest_agent.sequences import Sequences
from dest_agent.settling import end, take_over
from dest_agent.sources import Sources
from dest_agent.speaking import require_speaker
from dest_agent.stream_arrival import StreamArrival
from dest_agent.taking import Taking, insist
from dest_agent.vigil import Vigil
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.daemon.host_burden import Burden
from vm_migration.daemon.host_offer import HostOffer
from vm_migration.errors import AttemptFailed, InvalidInput, Missed, Refused, Stale
from vm_migration.handover.arrival import activating
from vm_migration.handover.evidence import view
from vm_migration.handover.journal_errors import JournalUncertain, JournalUnreadable
from vm_migration.handover.journals import Journals
from vm_migration.handover.ownership import former_retired, match
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.states import OPEN, State
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.errors import MachineError
from vm_migration.machine.hypervisor import Hypervisor
from vmm.assembly.specification import MachineSpecification

_KEPT: Final = 64
ARRIVAL_PATIENCE: Final = 120.0
"""Seconds for which an arrival that is not whole waits for a source that is silent and cannot be reached."""
_ENDED: Final = frozenset({State.DISCARDED, State.LOST})

AfterActive = Callable[[Record], Awaitable[None]]


class DestAgent:
    """Prepares, fills, verifies, activates."""

    def __init__(
        self,
        *,
        host: str,
        journals: Journals,
        hypervisor: Hypervisor,
        memory_budget: int,
        after_active: AfterActive,
        before_ready: BeforeReady = nothing_before_ready,
        sources: Sources | None = None,
        arrival_patience: float = ARRIVAL_PATIENCE,
        most_arrivals: int = MOST_ARRIVALS,
        offer: HostOffer | None = None,
    ) -> None:
        """Take what the agent works with; `sources` are asked about arrivals of which nothing is heard."""
        self.host: Final = host
        self.hypervisor: Final = hypervisor
        self._after_active: Final = after_active
        self._before_ready: Final = before_ready
        self.holdings: Final = Holdings(journals, hypervisor)
        self.admission: Final = Admission(
            host, hypervisor, memory_budget, self.holdings.arriving, most_arrivals, offer=offer
        )
        self._complaints: Final = Complaints()
        self._sequences: Final = Sequences()
        asked = Sources() if sources is None else sources
        self._taking: Final = Taking(host, self.holdings, asked)
        self._vigil: Final = Vigil(
            self.holdings,
            asked,
            self._complaints,
            self._sequences,
            patience=arrival_patience,
            became_active=self._became_active,
        )
        self._restart: Final = Restart(self.holdings, self._vigil, self._complaints)
        self._activated: Final[dict[str, destination_pb2.HandoffResponse]] = {}
        self._afterwards: Final = Afterwards()

    # before anything is taken in

    async def prepare(self, key: AttemptKey, request: destination_pb2.PrepareRequest) -> ArrivingMachine:
        """Make ready for an attempt; the same one asked again is answered with what is ready.

        Raises:
            Refused: It does not fit; nothing was allocated.
        """
        specification = specification_in(request.requirements)
        if request.requirements.machine != key.machine:
            raise InvalidInput("invalid-requirements", f"Requirements are of another machine than {key.machine}")
        async with self.holdings.alone(key.machine):
            known = self.holdings.arriving.get(key.attempt)
            if known is not None:
                await known.custody.write(lambda record: match(record, key))
                return known
            await self._make_way(key)
            with self.admission.place(request.requirements):
                return await self._prepared(key, specification, request)

    async def _prepared(
        self, key: AttemptKey, specification: MachineSpecification, request: destination_pb2.PrepareRequest
    ) -> ArrivingMachine:
        custody = await journal_prepared(self.holdings.journals, self.hypervisor, key, request)
        record = custody.record
        if record.state is not State.PREPARED or record.instance:
            await custody.close()
            text = f"Attempt {key.attempt} came to {record.state} here, in an earlier life of this agent"
            raise Refused("attempt-over", text, "Begin a new one")
        try:
            attempt = await bring_up(custody, self.hypervisor, specification, request)
        except BaseException:
            await custody.close()
            self._vigil.watch(key.machine)  # where its end could not be written either, it is open still
            raise
        self.holdings.arriving[key.attempt] = attempt
        self._complaints.settle(key.machine)
        self._vigil.watch(key.machine)
        return attempt

    def arriving(self, key: AttemptKey) -> ArrivingMachine:
        """Return the arrival that a source's call names; the call must match the journal exactly.

        Raises:
            Refused: It is not arriving here.
        """
        attempt = self.holdings.target(key.attempt, ArrivingMachine)  # type: ignore[type-abstract]  # asked, not made
        with self._telling(key):
            match(attempt.custody.record, key)
        return attempt

    def bulk_target(self, attempt: str) -> IncomingAttempt:
        """Return the arrival that a bulk stream names; see `Holdings.target`."""
        return self.holdings.target(attempt, IncomingAttempt)

    def stream_target(self, attempt: str) -> StreamArrival:
        """Return the arrival that a connection of a machine's own stream names; see `Holdings.target`."""
        return self.holdings.target(attempt, StreamArrival)

    async def hear(self, key: AttemptKey, sequence: int, speaker: str | None = None) -> None:
        """Take note of how far the journal of an attempt's source was when it, `speaker`, made a call; 0 is not told.

        Raises:
            Stale: It was further before: it has been put back, and nothing that its agent says may be acted on.
            Unauthorised: Who speaks is not the source.
        """
        arriving = self.holdings.arriving.get(key.attempt)
        try:
            record = await self.holdings.last(key.machine) if arriving is None else arriving.custody.record
        except JournalUnreadable:
            return
        require_speaker(record, key, speaker)
        with self._telling(key):
            self._sequences.check(key.attempt, sequence, record)

    # the machine's coming to life, or not

    async def finish(self, key: AttemptKey, request: destination_pb2.FinishRequest) -> Finished:
        """Load and verify an arrival; asked again, what it came to is answered."""
        async with self.holdings.alone(key.machine):
            attempt = self.arriving(key)
            attempt.asked = request
            return await self._finished(attempt, request)

    async def _finished(self, attempt: ArrivingMachine, request: destination_pb2.FinishRequest) -> Finished:
        if attempt.finished is None or attempt.finished.pause != request.pause:
            try:
                attempt.finished = await attempt.finish_as_asked(
                    request, self._before_ready, self._sequences.highest(request.key.attempt)
                )
            except MachineError as error:
                text = f"Machine could not be loaded at {self.host}: {error}"
                raise AttemptFailed("load-failed", text, "The machine goes on at its source") from error
        return attempt.finished

    async def hand_off(self, key: AttemptKey, pause: int, secret: bytes) -> destination_pb2.HandoffResponse:
        """Activate a READY machine on its secret; a repeated call answers and does nothing.

        The answer says LOST where the image is gone: it never ran here and never will.

        Raises:
            Unauthorised: The secret is not the attempt's.
            Refused: The machine is not READY at that pause.
            Unresolved: Its process went while it was being activated.
        """
        async with self.holdings.alone(key.machine):
            known = self._activated.get(key.attempt)
            if known is not None:
                return known
            last = await self.holdings.last(key.machine)
            if last.owned_epoch >= key.epoch and last.attempt != key.attempt:
                return destination_pb2.HandoffResponse(state=State.ACTIVE, boot_id=self.hypervisor.boot_id)
            with self._telling(key):
                last = match(last, key)
            if last.state is not State.LOST:
                activating(last, pause=pause, secret=secret)  # refused before the journal is even opened
            started = loop_ns()
            async with self.holdings.hold(key.machine) as custody:
                match(custody.record, key)
                was_active = custody.record.state is State.ACTIVE
                executed_ns = await take_over(custody, pause, secret)
                record = custody.record
                response = destination_pb2.HandoffResponse(
                    state=record.state,
                    boot_id=self.hypervisor.boot_id,
                    executed_at_ns=executed_ns,
                    activated_at_ns=loop_ns(),
                    activate_ms=(loop_ns() - started) / 1e6,
                )
                self._remember(key.attempt, response)
                await self.holdings.let_go(key.attempt)
            self._complaints.settle(key.machine)
        if record.state is State.ACTIVE and not was_active:
            self._became_active(record)
        return response

    async def discard(self, key: AttemptKey, proof: Record) -> Record:
        """Give an arrival up, on the source's proof that the attempt ended there.

        A source that stands STOPPED and whose process is gone has no such proof; it is told what the arrival is.

        Raises:
            Refused: The proof shows no end; the image is kept.
            Stale: The proof is of a journal that was put back to an older state.
        """
        if proof.machine != key.machine:
            raise InvalidInput("bad-proof", f"Proof is of machine {proof.machine}, not {key.machine}")
        await self.hear(key, proof.sequence)
        async with self.holdings.alone(key.machine):
            try:
                last = await self.holdings.last(key.machine)
            except JournalUnreadable:
                raise InvalidInput("unknown-attempt", f"Attempt {key.attempt} is not known here") from None
            if last.attempt != key.attempt or last.state not in OPEN:
                await self._restart.sweep(last)
                return last
            with self._telling(key):
                match(last, key)
            source = view(proof, key.attempt, key.epoch)
            async with self.holdings.hold(key.machine) as custody:
                match(custody.record, key)
                reason = f"Source is {source.sight}: {proof.reason}"
                try:
                    with self._telling(key):
                        return await end(custody, source, reason, self._finish_of(key.machine))
                finally:  # also where whoever asked has given up meanwhile
                    if custody.record.state in _ENDED:
                        self._complaints.settle(key.machine)
                        await self.holdings.let_go(key.attempt)

    def _finish_of(self, machine: str) -> Callable[[], Awaitable[None]] | None:
        """Return what repeats the source's last Finish; None where none came in this life of the agent."""
        arriving = self.holdings.arrival_of(machine)
        if arriving is None or arriving.asked is None:
            return None
        return partial(self._repeat_finish, arriving, arriving.asked)

    async def _repeat_finish(self, arriving: ArrivingMachine, asked: destination_pb2.FinishRequest) -> None:
        await self._finished(arriving, asked)

    async def note_retired(self, key: AttemptKey, *, fenced_by: str = "") -> Record:
        """Record that the former source retired its copy; from now on this owner may begin attempts of its own.

        `fenced_by` is an operator's word, which stands in for the former source's own.
        """
        async with self.holdings.alone(key.machine):
            last = await self.holdings.last(key.machine)
            with self._telling(key):
                if key.epoch > last.highest_epoch:
                    match(last, key)
            if last.owned_epoch != key.epoch or not last.owns or last.former_retired:
                return last
            reason = f"{last.peer} counts as retired: {fenced_by}" if fenced_by else ""
            async with self.holdings.holding(key.machine) as custody:
                record = await custody.write(lambda found: former_retired(found, reason=reason))
            self._complaints.settle(key.machine)
            return record

    async def take(self, request: types_pb2.TakeRequest) -> Record:
        """Start a whole image without its source's release, or end a machine of which no image is left: see taking."""
        try:
            return await self._taken(request)
        except JournalUncertain:  # TAKEN may stand
            self._afterwards.begin(insist(lambda: self._taken(request)), f"recovery of {request.key.machine}")
            raise

    async def _taken(self, request: types_pb2.TakeRequest) -> Record:
        machine = request.key.machine
        async with self.holdings.alone(machine):
            before = await self.holdings.last(machine)
            record = await self._taking.take(request, self._finish_of(machine))
            await self.holdings.let_go(record.attempt or before.attempt or "")
            self._complaints.settle(machine)
        if record.state is State.TAKEN and before.state is not State.TAKEN:
            self._afterwards.begin(self._after_active(record), f"after_active of {record.attempt}")
        return record

    async def go_on(self, machine: str) -> Record:
        """Go on now with what is arriving or what an earlier life left of a machine, and return where that leads.

        Raises:
            JournalUnreadable: Nothing is known of the machine here.
        """
        await self.holdings.last(machine)
        await self._restart.take_up(machine)
        return await self.holdings.last(machine)

    async def describe(self, key: AttemptKey, speaker: str | None = None) -> destination_pb2.IncomingReport:
        """Return what the journal says of an attempt, durably; no journal is told as highest epoch 0.

        `speaker` is the host that asks, None a driver.

        Raises:
            Unreachable: Whether its last record stands is not known.
        """
        arriving = self.holdings.arriving.get(key.attempt)
        if isinstance(arriving, StreamArrival):
            arriving.asked_about_by(speaker)
        try:
            last = await self.holdings.standing(key.machine)
        except JournalUnreadable:
            return destination_pb2.IncomingReport()
        return self.report(last, key)

    def report(self, record: Record, key: AttemptKey) -> destination_pb2.IncomingReport:
        """Return a record as its peers are told."""
        arriving = self.holdings.arriving.get(key.attempt)
        stale_pages = 0 if arriving is None else arriving.stale_pages
        return report(record, key.attempt, key.epoch, self.hypervisor, stale_pages=stale_pages)

    def burden(self) -> Burden:
        """Return what is arriving here at this moment, machines that are being brought up among it."""
        reserved = self.admission.reserved
        arriving = {one.custody.record.machine for one in self.holdings.arriving.values()}
        return Burden(len(arriving | reserved.keys()), reserved)

    def complaint(self, machine: str) -> str:
        """Return what this agent waits for, or refuses to do, with a machine; empty when nothing."""
        return self._complaints.of(machine)

    # its own life

    async def recover(self) -> None:
        """After a restart: what was arriving and not whole is given up; what was being activated is."""
        await self._restart.recover()

    async def stop(self) -> None:
        """Let go of everything; what has not arrived is given up at the next start, or on the source's proof."""
        await self._vigil.stop()
        await self._afterwards.stop()
        await self.holdings.close()

    async def _make_way(self, key: AttemptKey) -> None:
        """Let go of older arrivals of a machine that are not whole, or have ended: its source began anew."""
        for attempt, arriving in list(self.holdings.arriving.items()):
            record = arriving.custody.record
            if record.machine != key.machine or record.epoch >= key.epoch or (record.whole and not record.closed):
                continue
            if record.state is State.PREPARED:
                await give_up(arriving.custody, f"The source began attempt {key.attempt}")
            if arriving.custody.record.closed:
                await self.holdings.let_go(attempt)

    @contextmanager
    def _telling(self, key: AttemptKey) -> Iterator[None]:
        try:
            yield
        except (Missed, Stale) as error:
            if isinstance(error, Missed) or error.code == "journal-rolled-back":
                self._complaints.page(key.machine, error.code, error.message)
            raise

    def _became_active(self, record: Record) -> None:
        self._vigil.watch(record.machine)
        self._afterwards.begin(self._after_active(record), f"after_active of {record.attempt}")

    def _remember(self, attempt: str, response: destination_pb2.HandoffResponse) -> None:
        while len(self._activated) >= _KEPT:
            del self._activated[next(iter(self._activated))]
        self._activated[attempt] = response
