"""What an agent does with what an earlier life left: each machine is looked after once before anything is served.

A machine's source is asked first, for a moment only: what it says shows whether this host's journal still fits. Then
what this side alone decides is done, and what is left to wait for is watched.
"""

import asyncio
from typing import Final

from dest_agent.complaints import Complaints
from dest_agent.holdings import Holdings
from dest_agent.preparing import end_launch
from dest_agent.vigil import Vigil
from vm_migration.errors import MigrationError
from vm_migration.handover.custody import NO_INSTANCE
from vm_migration.handover.evidence import Process
from vm_migration.handover.record import Record
from vm_migration.handover.states import ARRIVING, State
from vm_migration.machine.errors import MachineError
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.telemetry import logs

_ASK_SECONDS: Final = 2.0
_AT_ONCE: Final = 16
_GIVEN_UP: Final = frozenset({State.DISCARDED, State.LOST, State.RETIRED})
_log: Final = logs.get(__name__)


class Restart:
    """Goes through the journals and the run directory of a host."""

    def __init__(self, holdings: Holdings, vigil: Vigil, complaints: Complaints) -> None:
        self._holdings: Final = holdings
        self._vigil: Final = vigil
        self._complaints: Final = complaints

    async def recover(self) -> None:
        """Take up every machine; one that cannot be must not keep the agent away from the others."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def in_turn(machine: str) -> None:
            async with turn:
                try:
                    await self.take_up(machine, re_attach=True)
                except Exception as error:  # noqa: BLE001 - see above
                    _log.error("arrival could not be recovered", machine=machine, exc_info=error)

        machines = await asyncio.to_thread(self._holdings.journals.machines)
        await asyncio.gather(*map(in_turn, machines))
        for place in self._holdings.hypervisor.all():
            if str(place.machine) not in machines and place.instance() is None:
                await self._remove_empty(place)

    async def take_up(self, machine: str, *, re_attach: bool = False) -> None:
        """Do what follows for one machine now, and watch what is left to wait for.

        Raises:
            JournalUnreadable: Nothing is known of it here.
        """
        record = await self._holdings.last(machine)
        logs.bind(machine=machine, attempt=record.attempt, epoch=record.epoch)
        if record.state in ARRIVING or record.state is State.ACTIVE:
            try:
                if re_attach and record.whole and record.state in ARRIVING:
                    await self._attach(machine)
                first = self._holdings.arrival_of(machine) is None
                waits = await self._vigil.look(machine, deadline=_ASK_SECONDS, first=first)
            except (MigrationError, MachineError) as error:
                code = error.code if isinstance(error, MigrationError) else "process-silent"
                self._complaints.wait(machine, code, str(error))
                waits = True
            if waits:
                self._vigil.watch(machine)
            record = await self._holdings.last(machine)
        async with self._holdings.alone(machine):
            await self.sweep(record)

    async def sweep(self, last: Record) -> None:
        """Free what an arrival that was given up has left, where an earlier life, or call, did not come to it."""
        if last.state not in _GIVEN_UP:
            return
        await self._holdings.let_go(last.attempt or "")
        place = self._holdings.hypervisor.of_text(last.machine)
        if not any(each.machine == place.machine for each in self._holdings.hypervisor.all()):
            return
        try:
            await self._free(last.machine)
        except (MigrationError, MachineError) as error:
            code = error.code if isinstance(error, MigrationError) else "leftover"
            self._complaints.page(last.machine, code, str(error))

    async def _free(self, machine: str) -> None:
        async with self._holdings.holding(machine) as custody:
            record, instance = custody.record, custody.place.instance()
            if record.state not in _GIVEN_UP:
                return
            if instance is None or instance.name == record.instance:
                await custody.take_away(kill=True)
            else:
                await end_launch(custody, self._holdings.hypervisor, custody.place)

    async def _attach(self, machine: str) -> None:
        """Cut off whoever had a whole image in hand in an earlier life, frozen as it may be."""
        async with self._holdings.alone(machine), self._holdings.holding(machine) as custody:
            if custody.process() is Process.ALIVE:
                await custody.attach(custody.record.epoch)

    async def _remove_empty(self, place: MachinePlace) -> None:
        """Remove a folder that a launch left before it had a process to name; one that is being filled stays."""
        try:
            await self._holdings.hypervisor.take_away(place, None, only=NO_INSTANCE)
        except MachineError as error:
            _log.warning("folder of a machine that is being started", path=str(place.path), reason=str(error))
