"""The destination agent: takes machines in, one attempt for each machine at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from dest_agent.incoming_attempt import Finished, IncomingAttempt
from dest_agent.preparing import bring_up, give_up, journal_prepared
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.daemon.host_facts import VERSION, speaks
from vm_migration.errors import AttemptFailed, InvalidInput, MigrationError, Refused
from vm_migration.handover.arrival import activating, active, discarded
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import view
from vm_migration.handover.journal import read_last
from vm_migration.handover.journal_errors import JournalUnreadable
from vm_migration.handover.ownership import former_retired, match
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.states import OPEN, State
from vm_migration.machine.launch import take_away
from vm_migration.machine.memory_use import memory_in_use
from vm_migration.machine.port import MachineError
from vm_migration.machine.run_directory import RunDirectory
from vm_migration.telemetry import logs
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.machine_state import STATE_FORMAT
from vmm.assembly.specification import MachineSpecification, parse_specification
from vmm.process.control import Observation
from vmm.process.description import boot_id

_KEPT: Final = 64
_log: Final = logs.get(__name__)

AfterActive = Callable[[Record], Awaitable[None]]


class DestAgent:
    """Prepares, fills, verifies, activates."""

    def __init__(
        self, *, host: str, state_dir: Path, run_dir: Path, memory_budget: int, after_active: AfterActive
    ) -> None:
        self.host: Final = host
        self.memory_budget: Final = memory_budget
        self.run: Final = RunDirectory(run_dir)
        self._journals: Final = state_dir / "journal"
        self._after_active: Final = after_active
        self._arriving: Final[dict[str, IncomingAttempt]] = {}
        self._activated: Final[dict[str, destination_pb2.HandoffResponse]] = {}
        self._locks: Final[dict[str, asyncio.Lock]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    # before anything is taken in

    async def check(self, requirements: types_pb2.Requirements) -> list[Observation]:
        """Return everything that speaks against taking a machine in; nothing is changed."""
        found = []
        if not speaks(requirements.version) or requirements.state_format != STATE_FORMAT:
            text = f"Source has version {requirements.version}, {self.host} has {VERSION}"
            found.append(Observation(code="version", message=text))
        left = self.memory_budget - memory_in_use(self.run)
        if requirements.ram_bytes > left:
            text = f"{self.host} has {left} bytes left of its memory budget; {requirements.ram_bytes} are needed"
            found.append(Observation(code="no-memory", message=text))
        for directory in self.run.all():
            same_id = str(directory.machine) == requirements.machine
            if directory.alive() and (same_id or _name_in(directory.path) == requirements.name):
                text = f"A machine {requirements.name} ({directory.machine}) is on {self.host} already"
                found.append(Observation(code="machine-exists", message=text))
        return found

    async def prepare(self, key: AttemptKey, request: destination_pb2.PrepareRequest) -> IncomingAttempt:
        """Make ready for an attempt; the same one asked again is answered with what is ready.

        Raises:
            Refused: It does not fit; nothing was allocated.
        """
        specification = _specification(request.requirements)
        async with self._lock(key.machine):
            known = self._arriving.get(key.attempt)
            if known is not None:
                return known
            await self._make_way(key)
            blockers = await self.check(request.requirements)
            if blockers:
                text = "; ".join(each.message for each in blockers)
                raise Refused(blockers[0].code, text, "Choose another destination, or make room")
            custody = await journal_prepared(self._journals, self.run, key, request)
            if custody.record.state is not State.PREPARED or custody.record.instance:
                state = custody.record.state
                await custody.close()
                raise Refused("attempt-over", f"Attempt {key.attempt} came to {state} here", "Begin a new one")
            try:
                attempt = await bring_up(custody, self.run, specification, request)
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
        """Load and verify an arrival."""
        async with self._lock(key.machine):
            attempt = self.arriving(key)
            try:
                return await attempt.finish(
                    pause=request.pause,
                    number=request.round,
                    state=request.device_state,
                    was_running=request.was_running,
                    verify=request.verify,
                )
            except MachineError as error:
                text = f"Machine could not be loaded at {self.host}: {error}"
                raise AttemptFailed("load-failed", text, "The machine goes on at its source") from error

    async def hand_off(self, key: AttemptKey, pause: int, secret: bytes) -> destination_pb2.HandoffResponse:
        """Activate a READY machine on its secret; a repeated call answers and does nothing.

        Raises:
            Unauthorised: The secret is not the attempt's.
            Refused: The machine is not READY at that pause.
        """
        async with self._lock(key.machine):
            known = self._activated.get(key.attempt)
            if known is not None:
                return known
            last = await self._last(key.machine)
            if last.owned_epoch >= key.epoch and last.attempt != key.attempt:
                return destination_pb2.HandoffResponse(state=State.ACTIVE, boot_id=boot_id())
            activating(match(last, key), pause=pause, secret=secret)  # refused before the journal is even opened
            async with self._held(key) as custody:
                response = await self._activate(custody, pause, secret)
                self._remember(key.attempt, response)
                record = custody.record
                await self._let_go(key.attempt)
        self._spawn(self._after_active(record), f"after_active of {key.attempt}")
        return response

    async def discard(self, key: AttemptKey, proof: Record) -> Record:
        """Give an arrival up, on the source's proof that the attempt ended there.

        Raises:
            Refused: The proof shows no end; the image is kept.
        """
        async with self._lock(key.machine):
            try:
                last = await self._last(key.machine)
            except JournalUnreadable:
                raise InvalidInput("unknown-attempt", f"Attempt {key.attempt} is not known here") from None
            if last.attempt != key.attempt or last.state not in OPEN:
                return last
            source = view(proof, key.attempt, key.epoch)
            async with self._held(key) as custody:
                record = await custody.write(
                    lambda last: discarded(last, source=source, reason=f"Source is {source.sight}: {proof.reason}")
                )
                await take_away(custody.directory, custody.port)
                await self._let_go(key.attempt)
            return record

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
        directory = self.run.of_text(record.machine)
        return destination_pb2.IncomingReport(
            state=record.state if held else "",
            highest_epoch=record.highest_epoch,
            pause=record.pause if held else 0,
            process_alive=directory.alive(),
            whole=held and record.whole,
            stale_pages=0 if arriving is None else arriving.stale_pages,
        )

    # its own life

    async def recover(self) -> None:
        """After a restart: what was arriving and not whole is given up; what was being activated is."""
        for directory in self.run.all():
            machine = str(directory.machine)
            try:
                record = await self._last(machine)
                if record.state is State.PREPARED and not record.whole:
                    async with self._opened(machine) as custody:
                        reason = "The destination agent was restarted while the image was arriving"
                        await give_up(custody, reason, attached=False)
                elif record.state is State.ACTIVATING and directory.alive():
                    async with self._opened(machine) as custody:
                        await custody.attach(record.epoch)
                        await self._confirm(custody)
            except (MigrationError, MachineError) as error:
                _log.error("arrival could not be recovered", machine=machine, reason=str(error))

    async def stop(self) -> None:
        """Let go of everything; what has not arrived is given up at the next start, or on the source's proof."""
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

    async def _activate(self, custody: Custody, pause: int, secret: bytes) -> destination_pb2.HandoffResponse:
        started = time.monotonic_ns()
        await custody.write(lambda record: activating(record, pause=pause, secret=secret))
        executed_ns = await self._confirm(custody)
        return destination_pb2.HandoffResponse(
            state=custody.record.state,
            boot_id=boot_id(),
            executed_at_ns=executed_ns,
            activated_at_ns=time.monotonic_ns(),
            activate_ms=(time.monotonic_ns() - started) / 1e6,
        )

    async def _confirm(self, custody: Custody) -> int:
        """Start the guest, or leave it paused as it was, and write ACTIVE on the process's own word."""
        record, executed_ns = custody.record, 0
        if record.was_running:
            executed_ns = await custody.port.run(record.epoch)
        else:
            await custody.port.stay_paused(record.epoch)
        answer = await custody.answer()
        await custody.write(lambda last: active(last, process=answer))
        return executed_ns

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
            if custody.directory.alive():
                await custody.attach(custody.record.epoch)
            yield custody

    @asynccontextmanager
    async def _opened(self, machine: str) -> AsyncIterator[Custody]:
        custody = await Custody.open(self._journals, self.run, machine)
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
        return await asyncio.to_thread(read_last, self._journals, machine)

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


def _specification(requirements: types_pb2.Requirements) -> MachineSpecification:
    try:
        return parse_specification(requirements.specification)
    except InvalidDocument as error:
        text = "; ".join(str(fault) for fault in error.faults)
        raise InvalidInput("invalid-specification", f"Specification is not valid here: {text}") from error


def _name_in(path: Path) -> str:
    try:
        return parse_specification((path / "specification.json").read_bytes()).name
    except (OSError, InvalidDocument):
        return ""
