"""The machines that this host holds: found in the run directory, each in a custody while the agent acts on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from source_agent.updating.places import end_silent, follow_journal, is_superseded
from vm_migration.errors import InvalidInput, Refused, Unreachable
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import Process
from vm_migration.handover.journal_errors import JournalMoved
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import Record
from vm_migration.handover.states import ABSENT, ARRIVING
from vm_migration.machine.errors import MachineError, MachineGone
from vm_migration.machine.hypervisor import Hypervisor, MachinePlace
from vm_migration.machine.memory_use import memory_in_use
from vm_migration.machine.succession import NoSuccession, Succession
from vm_migration.machine.turns import Turns
from vm_migration.telemetry import logs
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.specification import MachineSpecification, parse_specification
from vmm.process.control import Description

_log: Final = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Holding:
    """One machine as it was found: its journal's last record, and what its process said, if it answered."""

    record: Record
    specification: MachineSpecification
    description: Description | None


class Holdings:
    """Opens custodies, one at a time for each machine."""

    def __init__(self, journals: Journals, hypervisor: Hypervisor, succession: Succession | None = None) -> None:
        """Without `succession`, machines stay in the processes that they were created in."""
        self.hypervisor: Final = hypervisor
        self.succession: Final[Succession] = NoSuccession() if succession is None else succession
        self.journals: Final = journals
        self._custodies: Final[dict[str, Custody]] = {}
        self._turns: Final = Turns()

    async def look(self, place: MachinePlace) -> Holding:
        """Look at a machine without taking it over.

        Raises:
            Unreachable: Its journal cannot be read.
            MachineGone: Its folder holds no specification.
        """
        record = await asyncio.to_thread(self.journals.read_last, str(place.machine))
        try:
            specification = parse_specification(place.specification())
        except InvalidDocument as error:
            raise MachineGone(f"Machine {place.machine} has no valid specification: {error}") from error
        port = self.hypervisor.connect(place)
        try:
            description = await port.describe() if place.alive() else None
        except MachineError:
            description = None
        finally:
            await port.close()
        return Holding(record, specification, description)

    async def all(self) -> list[Holding]:
        """Look at every machine that is at home here; one that is arriving is its destination agent's."""
        found = []
        for place in self.hypervisor.all():
            try:
                holding = await self.look(place)
            except (Unreachable, MachineError) as error:
                _log.warning("folder of a machine that cannot be told", path=str(place.path), reason=str(error))
                continue
            if holding.record.state not in ARRIVING | ABSENT:
                found.append(holding)
        return found

    async def find(self, name: str) -> Holding:
        """Look at the machine of a name or UUID.

        Raises:
            InvalidInput: There is none here.
            Refused: Several have the name.
        """
        matching = [each for each in await self.all() if name in (each.record.machine, each.specification.name)]
        if not matching:
            raise InvalidInput("unknown-machine", f"No machine {name} on this host", "See: viaduct machine list")
        if len(matching) > 1:
            raise Refused("ambiguous-name", f"{len(matching)} machines are called {name} here", "Name it by its UUID")
        return matching[0]

    def alone(self, machine: str) -> AbstractAsyncContextManager[None]:
        """Let nobody else act on a machine for the length of the context; raises as Turns says."""
        return self._turns.alone(machine)

    async def renewed(self, custody: Custody) -> Custody:
        """Return the custody that takes this one's place: the journal opened anew, the process attached to it.

        Raises:
            Unreachable, MachineError: As for `hold`.
        """
        machine = custody.record.machine
        async with self.alone(machine):
            if self._custodies.get(machine) is custody:
                await self.drop(machine)
            return await self.custody(machine)

    @asynccontextmanager
    async def hold(self, machine: str) -> AsyncIterator[Custody]:
        """Hold a machine's journal and command its process, for the length of the context.

        Raises:
            Unreachable: Its journal cannot be read.
            CutOff, MachineGone: Its process is somebody else's, or does not answer.
        """
        async with self.alone(machine):
            custody = await self.custody(machine)
            try:
                yield custody
            except JournalMoved:
                await self.drop(machine)
                raise

    async def custody(self, machine: str) -> Custody:
        """Return the machine's custody, opened and attached where its process lives."""
        custody = self._custodies.get(machine)
        if custody is not None and custody.uncertain and custody.record.closed:
            await self.drop(machine)  # opened anew, it knows again what is durable
            custody = None
        if custody is not None and is_superseded(custody):
            await self.drop(machine)  # it commands the process that an update has taken the machine from
            custody = None
        if custody is not None:
            last = await asyncio.to_thread(self.journals.read_last, machine)
            if last.controller == custody.record.controller:
                return custody
            await self.drop(machine)
        custody = await Custody.open(self.journals, self.hypervisor, machine)
        try:
            await follow_journal(custody, self.hypervisor, self.succession)
            if custody.process() is Process.ALIVE:
                await self._attach(custody)
        except BaseException:
            await custody.close()
            raise
        self._custodies[machine] = custody
        return custody

    async def _attach(self, custody: Custody) -> None:
        try:
            await custody.attach(max(custody.record.owned_epoch, custody.record.released_epoch))
        except MachineGone:
            if not await end_silent(custody, self.hypervisor, self.succession):
                raise

    def adopt(self, custody: Custody) -> None:
        """Keep a custody that was opened elsewhere."""
        self._custodies[custody.record.machine] = custody

    async def drop(self, machine: str) -> None:
        """Let go of a custody; the machine goes on as it is."""
        custody = self._custodies.pop(machine, None)
        if custody is not None:
            await custody.close()

    async def let_go(self, custody: Custody) -> None:
        """Let go of this custody, if it is still the machine's."""
        if self._custodies.get(custody.record.machine) is custody:
            await self.drop(custody.record.machine)

    async def close(self) -> None:
        """Let go of all."""
        for machine in list(self._custodies):
            await self.drop(machine)

    def memory_in_use(self) -> int:
        """Return the RAM of all machines of the run directory, arriving ones included, in bytes."""
        return memory_in_use(self.hypervisor)


def machine_uuid(text: str) -> UUID:
    """Return the UUID that a request names.

    Raises:
        InvalidInput: It names none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput("invalid-uuid", f"{text!r} is not a machine's UUID", "Name it by its UUID") from None
