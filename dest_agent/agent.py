"""The destination agent: takes machines in, one attempt for each machine at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from dest_agent.admission import Admission, specification_in
from dest_agent.incoming_attempt import BeforeReady, Finished, IncomingAttempt, nothing_before_ready
from dest_agent.preparing import bring_up, give_up, journal_prepared
from dest_agent.settling import end, recover, take_over
from vm_migration.api.v1 import destination_pb2
from vm_migration.errors import AttemptFailed, InvalidInput, MigrationError, Refused
from vm_migration.handover.arrival import activating
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import view
from vm_migration.handover.journal_errors import JournalUnreadable
from vm_migration.handover.journals import Journals
from vm_migration.handover.ownership import former_retired, match
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.states import ARRIVING, OPEN, State
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.hypervisor import Hypervisor
from vm_migration.machine.port import MachineError
from vm_migration.telemetry import logs
from vmm.assembly.specification import MachineSpecification
from vmm.vfio.device_records import DeviceTotal

_KEPT: Final = 64
_HOOKS_GRACE: Final = 5.0
_GIVEN_UP: Final = frozenset({State.DISCARDED, State.LOST})
_log: Final = logs.get(__name__)

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
    ) -> None:
        self.host: Final = host
        self.hypervisor: Final = hypervisor
        self.admission: Final = Admission(host, hypervisor, memory_budget)
        self._journals: Final = journals
        self._after_active: Final = after_active
        self._before_ready: Final = before_ready
        self._arriving: Final[dict[str, IncomingAttempt]] = {}
        self._activated: Final[dict[str, destination_pb2.HandoffResponse]] = {}
        self._locks: Final[dict[str, asyncio.Lock]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    # before anything is taken in

    async def prepare(self, key: AttemptKey, request: destination_pb2.PrepareRequest) -> IncomingAttempt:
        """Make ready for an attempt; the same one asked again is answered with what is ready.

        Raises:
            Refused: It does not fit; nothing was allocated.
        """
        specification = specification_in(request.requirements)
        if request.requirements.machine != key.machine:
            raise InvalidInput("invalid-requirements", f"Requirements are of another machine than {key.machine}")
        async with self._lock(key.machine):
            known = self._arriving.get(key.attempt)
            if known is not None:
                await known.custody.write(lambda record: match(record, key))
                return known
            await self._make_way(key)
            with self.admission.place(request.requirements):
                return await self._prepared(key, specification, request)

    async def _prepared(
        self, key: AttemptKey, specification: MachineSpecification, request: destination_pb2.PrepareRequest
    ) -> IncomingAttempt:
        custody = await journal_prepared(self._journals, self.hypervisor, key, request)
        record = custody.record
        if record.state is not State.PREPARED or record.instance:
            await custody.close()
            text = f"Attempt {key.attempt} came to {record.state} here, in an earlier life of this agent"
            raise Refused("attempt-over", text, "Begin a new one")
        try:
            attempt = await bring_up(custody, self.hypervisor, specification, request)
        except BaseException:
            await custody.close()
            raise
        self._arriving[key.attempt] = attempt
        return attempt

    def arriving(self, key: AttemptKey) -> IncomingAttempt:
        """Return the arrival that a source's call names; the call must match the journal exactly.

        Raises:
            Refused: It is not arriving here.
        """
        attempt = self._arriving.get(key.attempt)
        if attempt is None:
            raise Refused("not-arriving", f"Attempt {key.attempt} is not arriving at {self.host}", "Ask for its state")
        match(attempt.custody.record, key)
        return attempt

    def bulk_target(self, attempt: str) -> IncomingAttempt:
        """Return the arrival that a bulk stream names; its ticket is checked there.

        Raises:
            Refused: It is not arriving here.
        """
        arriving = self._arriving.get(attempt)
        if arriving is None:
            raise Refused("not-arriving", f"Attempt {attempt} is not arriving at {self.host}", "Ask for its state")
        return arriving

    # the machine's coming to life, or not

    async def finish(self, key: AttemptKey, request: destination_pb2.FinishRequest) -> Finished:
        """Load and verify an arrival; asked again, what it came to is answered."""
        async with self._lock(key.machine):
            attempt = self.arriving(key)
            attempt.asked = request
            return await self._finished(attempt, request)

    async def _finished(self, attempt: IncomingAttempt, request: destination_pb2.FinishRequest) -> Finished:
        if attempt.finished is None or attempt.finished.pause != request.pause:
            try:
                attempt.finished = await attempt.finish(
                    pause=request.pause,
                    number=request.round,
                    state=request.machine_state,
                    devices=DeviceTotal(
                        request.device_data.records, request.device_data.data_bytes, request.device_data.checksum
                    ),
                    was_running=request.was_running,
                    verify=request.verify,
                    before_ready=self._before_ready,
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
        async with self._lock(key.machine):
            known = self._activated.get(key.attempt)
            if known is not None:
                return known
            last = await self._last(key.machine)
            if last.owned_epoch >= key.epoch and last.attempt != key.attempt:
                return destination_pb2.HandoffResponse(state=State.ACTIVE, boot_id=self.hypervisor.boot_id)
            if match(last, key).state is not State.LOST:
                activating(match(last, key), pause=pause, secret=secret)  # refused before the journal is even opened
            started = loop_ns()
            async with self._held(key) as custody:
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
                await self._let_go(key.attempt)
        if record.state is State.ACTIVE and not was_active:
            self._spawn(self._after_active(record), f"after_active of {key.attempt}")
        return response

    async def discard(self, key: AttemptKey, proof: Record) -> Record:
        """Give an arrival up, on the source's proof that the attempt ended there.

        A source that stands STOPPED and whose process is gone has no such proof; it is told what the arrival is.

        Raises:
            Refused: The proof shows no end; the image is kept.
        """
        if proof.machine != key.machine:
            raise InvalidInput("bad-proof", f"Proof is of machine {proof.machine}, not {key.machine}")
        async with self._lock(key.machine):
            try:
                last = await self._last(key.machine)
            except JournalUnreadable:
                raise InvalidInput("unknown-attempt", f"Attempt {key.attempt} is not known here") from None
            if last.attempt != key.attempt or last.state not in OPEN:
                await self._sweep(last)
                return last
            source = view(proof, key.attempt, key.epoch)
            arriving = self._arriving.get(key.attempt)
            async with self._held(key) as custody:
                finish = None if arriving is None or arriving.asked is None else partial(self._repeat_finish, arriving)
                record = await end(custody, source, f"Source is {source.sight}: {proof.reason}", finish)
                if record.state in _GIVEN_UP:
                    await self._let_go(key.attempt)
            return record

    async def _repeat_finish(self, arriving: IncomingAttempt) -> None:
        if arriving.asked is not None:
            await self._finished(arriving, arriving.asked)

    async def note_retired(self, key: AttemptKey) -> Record:
        """Record that the former source retired its copy; from now on this owner may begin attempts of its own."""
        async with self._lock(key.machine):
            last = await self._last(key.machine)
            if last.owned_epoch != key.epoch or not last.owns or last.former_retired:
                return last
            async with self._opened(key.machine) as custody:
                return await custody.write(former_retired)

    async def describe(self, key: AttemptKey) -> destination_pb2.IncomingReport:
        """Return what the journal says of an attempt; no journal is told as highest epoch 0."""
        try:
            last = await self._last(key.machine)
        except JournalUnreadable:
            return destination_pb2.IncomingReport()
        return self.report(last, key.attempt)

    def report(self, record: Record, attempt: str) -> destination_pb2.IncomingReport:
        """Return a record as its peers are told."""
        held = record.attempt == attempt
        arriving = self._arriving.get(attempt)
        living = self.hypervisor.instance_lives(record.instance)
        return destination_pb2.IncomingReport(
            state=record.state if held else "",
            highest_epoch=record.highest_epoch,
            pause=record.pause if held else 0,
            process_alive=self.hypervisor.of_text(record.machine).alive() if living is None else living,
            whole=held and record.whole,
            stale_pages=0 if arriving is None else arriving.stale_pages,
        )

    # its own life

    async def recover(self) -> None:
        """After a restart: what was arriving and not whole is given up; what was being activated is."""
        for machine in await asyncio.to_thread(self._journals.machines):
            try:
                await self._recover_one(machine)
            except Exception as error:  # noqa: BLE001 - one arrival must not keep the agent away from the others
                _log.error("arrival could not be recovered", machine=machine, exc_info=error)

    async def _recover_one(self, machine: str) -> None:
        last = await self._last(machine)
        if last.state in ARRIVING:
            async with self._opened(machine) as custody:
                if await recover(custody):
                    self._spawn(self._after_active(custody.record), f"after_active of {custody.record.attempt}")
        await self._sweep(last)

    async def _sweep(self, last: Record) -> None:
        """Free what an arrival that was given up has left, where an earlier life, or call, did not come to it."""
        if last.state not in _GIVEN_UP:
            return
        await self._let_go(last.attempt or "")
        place = self.hypervisor.of_text(last.machine)
        instance = place.instance()
        if instance is not None and instance.name == last.instance:
            await self.hypervisor.take_away(place, None)

    async def stop(self) -> None:
        """Let go of everything; what has not arrived is given up at the next start, or on the source's proof."""
        if self._tasks:  # hooks, which a machine that has just come to life may need
            await asyncio.wait(set(self._tasks), timeout=_HOOKS_GRACE)
        for task in self._tasks:
            task.cancel()
        for attempt in list(self._arriving.values()):
            attempt.let_go_of_ram()
            await attempt.custody.close()
        self._arriving.clear()

    async def _make_way(self, key: AttemptKey) -> None:
        """Give up an older arrival of the same machine that holds no whole image: its source began anew."""
        for attempt, arriving in list(self._arriving.items()):
            record = arriving.custody.record
            if record.machine == key.machine and record.epoch < key.epoch and record.state is State.PREPARED:
                if record.whole:
                    continue
                await give_up(arriving.custody, f"The source began attempt {key.attempt}")
                await self._let_go(attempt)

    @asynccontextmanager
    async def _held(self, key: AttemptKey) -> AsyncIterator[Custody]:
        """Hold what is arriving, or what an earlier life of this agent left of it."""
        arriving = self._arriving.get(key.attempt)
        if arriving is not None:
            match(arriving.custody.record, key)
            yield arriving.custody
            return
        async with self._opened(key.machine) as custody:
            match(custody.record, key)
            if custody.place.alive():
                await custody.attach(custody.record.epoch)
            yield custody

    @asynccontextmanager
    async def _opened(self, machine: str) -> AsyncIterator[Custody]:
        custody = await Custody.open(self._journals, self.hypervisor, machine)
        try:
            yield custody
        finally:
            await custody.close()

    async def _let_go(self, attempt: str) -> None:
        arriving = self._arriving.pop(attempt, None)
        if arriving is not None:
            arriving.let_go_of_ram()
            await arriving.custody.close()

    async def _last(self, machine: str) -> Record:
        return await asyncio.to_thread(self._journals.read_last, machine)

    def _remember(self, attempt: str, response: destination_pb2.HandoffResponse) -> None:
        while len(self._activated) >= _KEPT:
            del self._activated[next(iter(self._activated))]
        self._activated[attempt] = response

    def _spawn(self, work: Awaitable[None], name: str) -> None:
        async def run() -> None:
            try:
                await work
            except MigrationError as error:
                _log.warning("hook failed", reason=error.message)

        task = asyncio.create_task(run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lock(self, machine: str) -> asyncio.Lock:
        return self._locks.setdefault(machine, asyncio.Lock())
