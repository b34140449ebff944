"""One machine at one host, in the hands of one agent: its journal, and its process, attached to that controller.

::

    journal opened (controller number drawn, OPENED durable) --> process attached with (epoch, controller)
                                                                  older controllers are cut off

Everything an agent does to a machine goes through here, so that what is written and what is done keep their order:
a write is finished, or has failed, before the next one begins, also when the task that asked for it is cancelled.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from uuid import UUID

from vm_migration.errors import InternalError, Stale, Unreachable
from vm_migration.handover.evidence import InstanceGone, Process, ProcessAnswer
from vm_migration.handover.journal import Journal
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import Record
from vm_migration.handover.states import ABSENT, State
from vm_migration.machine.errors import CutOff, MachineError, MachineGone
from vm_migration.machine.hypervisor import Hypervisor, MachinePlace
from vm_migration.machine.port import MachinePort
from vm_migration.telemetry import logs
from vmm.process.control import Description

Change = Callable[[Record], Record]
_END_SECONDS: Final = 2.0
"""For a process to end by request; it is killed then, for it holds memory, and its folder the machine's name."""
NO_INSTANCE: Final = "none"
"""Names no process: what is taken away is an empty place at most."""
_log: Final = logs.get(__name__)


class Custody:
    """Holds a journal; `port` commands the process once `attach` has been called."""

    def __init__(self, journal: Journal, place: MachinePlace, hypervisor: Hypervisor) -> None:
        self.place: Final = place
        self.port: MachinePort = hypervisor.connect(place)
        self._hypervisor: Final = hypervisor
        self._journal: Final = journal
        self._lock: Final = asyncio.Lock()
        self._freeing: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(cls, journals: Journals, hypervisor: Hypervisor, machine: str) -> "Custody":
        """Open the machine's journal and cut off whoever held it.

        Raises:
            JournalUnreadable: The journal is missing, empty or damaged: treat the machine as unreachable here.
        """
        journal = await asyncio.to_thread(journals.open, machine)
        return cls(journal, hypervisor.of(UUID(machine)), hypervisor)

    @property
    def record(self) -> Record:
        """The journal's last record, as this controller wrote or restated it; see `uncertain`."""
        return self._journal.last

    @property
    def uncertain(self) -> bool:
        """Whether a record that may or may not be durable follows `record`, on which nothing may be founded then."""
        return self._journal.uncertain is not None

    async def write(self, change: Change) -> Record:
        """Append what `change` makes of the last record, unless it is that very record; durable when this returns.

        Raises:
            Refused: What the change refuses; nothing was written.
            Stale: Another controller has opened the journal, or this custody was closed; it is over.
            JournalUncertain: Whether it is durable is unknown.
        """
        return await asyncio.shield(asyncio.create_task(self._write(change), name="journal write"))

    async def settle(self) -> Record:
        """Return the last record once it is known to be durable, and a write under way has ended.

        Raises:
            Stale: Another controller has opened the journal, or this custody was closed; it is over.
            JournalUncertain: Whether it is durable is unknown.
        """
        return await asyncio.shield(asyncio.create_task(self._settled(), name="journal settled"))

    async def attach(self, epoch: int) -> Description:
        """Command the process.

        Raises:
            CutOff: A newer controller commands it.
            MachineGone: It does not answer.
        """
        return await self.port.attach(epoch, self.record.controller)

    async def answer(self) -> ProcessAnswer:
        """Return the process's own answer, given at this moment.

        Raises:
            MachineGone: It does not answer.
        """
        description = await self.port.describe()
        instance = self.place.instance()
        known = instance is not None and (instance.vmm.pid, instance.token) == (description.pid, description.instance)
        return ProcessAnswer(
            instance=instance.name if instance is not None and known else f"unknown:{description.instance}",
            controller=description.controller,
            running=description.run_state == "running",
            pause=description.pause,
        )

    async def answer_or_proof(self) -> ProcessAnswer | InstanceGone:
        """Return the process's answer, or the proof that the journalled instance is gone.

        Raises:
            Unreachable: It lives and does not answer: nothing can be concluded.
        """
        try:
            return await self.answer()
        except MachineGone as error:
            if self.process() is Process.GONE:
                return InstanceGone(self.record.instance)
            raise Unreachable("process-silent", f"Machine process does not answer: {error}", "Look at it") from error

    def process(self) -> Process:
        """Look at the journalled instance by its ids."""
        living = self._hypervisor.instance_lives(self.record.instance)
        if living is None:
            return Process.UNKNOWN
        return Process.ALIVE if living else Process.GONE

    @asynccontextmanager
    async def mine(self) -> AsyncIterator[Record]:
        """Keep everybody else from opening the journal, for what only its controller may do; yield its last record.

        Raises:
            Stale: Another controller has opened the journal, or this custody was closed; it may not be done.
            JournalUncertain: Nobody knows which record stands; it may not be done.
        """
        async with self._lock, AsyncExitStack() as stack:
            self._require_open()
            await asyncio.to_thread(stack.enter_context, self._journal.mine())
            yield self._journal.last

    async def take_away(self, *, kill: bool) -> None:
        """End the machine's processes and remove its place; by request of whoever commands it, or killed by their ids.

        Only where the journal's last record is this controller's and says that nothing of the machine belongs here, and
        only the instance that it names: an agent that was frozen, and comes back, ends nobody else's machine.

        Raises:
            Stale: Another controller has opened the journal, or commands the process; nothing was ended.
            MachineRefused: Somebody else is filling the place, or taking it away.
        """
        record = self.record
        if record.state not in ABSENT:
            raise InternalError("not-free", f"Machine {record.machine} is {record.state}: it is not to be freed")
        # To its end, whoever asked: a thread that nobody waits for may have the journal's lock by then, and a process
        # that has ended leaves its place behind.
        self._freeing = asyncio.create_task(self._freed(record, kill=kill), name="machine freed")
        await asyncio.shield(self._freeing)

    async def _freed(self, record: Record, *, kill: bool) -> None:
        if not kill:
            await self._end_by_request()
        async with self.mine():
            only = "" if record.state is State.DESTROYED else record.instance or NO_INSTANCE
            await self._hypervisor.take_away(self.place, None, only=only)

    async def _end_by_request(self) -> None:
        """Ask the process to end, which it refuses to whoever was cut off; one that is silent is killed later."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self.port.destroy()
        except CutOff as error:
            raise Stale("machine-cut-off", f"Machine obeys another controller: {error}", "Ask again") from error
        except (MachineError, TimeoutError) as error:
            _log.warning("machine does not end by request", machine=self.record.machine, reason=str(error))

    async def close(self) -> None:
        """Let go of both once a write or a freeing under way has ended; the machine goes on as it is."""
        if self._freeing is not None:
            await asyncio.wait((self._freeing,))
            if not self._freeing.cancelled() and (error := self._freeing.exception()) is not None:
                _log.warning("machine not freed", machine=self.record.machine, reason=str(error))
        async with self._lock:
            if self._closed:
                return
            self._closed = True
            self._journal.close()
        await self.port.close()

    async def _write(self, change: Change) -> Record:
        async with self._lock:
            return await asyncio.to_thread(self._append, change)

    async def _settled(self) -> Record:
        async with self._lock:
            self._require_open()
            await asyncio.to_thread(self._journal.settle)
            return self._journal.last

    def _append(self, change: Change) -> Record:
        if not self._closed:
            self._journal.settle()  # what follows a record of which nobody knew is made of it, and undoes nothing
        last = self._journal.last
        following = change(last)
        if following is last:
            return last
        self._require_open()
        return self._journal.append(following)

    def _require_open(self) -> None:
        if self._closed:
            raise Stale("custody-over", f"This agent has let go of machine {self.record.machine}", "Ask again")
