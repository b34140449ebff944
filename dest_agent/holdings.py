"""The journals of machines that arrive at this host, and the arrivals of this life of the agent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar

from dest_agent.arriving_machine import ArrivingMachine
from vm_migration.errors import Refused, Unreachable
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import Process
from vm_migration.handover.journal_errors import JournalMoved, JournalUncertain
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import Record
from vm_migration.handover.states import ARRIVING, State
from vm_migration.machine.hypervisor import Hypervisor
from vm_migration.machine.turns import Turns

_ACTED_UPON: Final = ARRIVING | {State.ACTIVE, State.TAKEN, State.DISCARDED, State.LOST}
"""What a source releases, retires, reclaims or loses its own copy on."""

_Arrival = TypeVar("_Arrival", bound=ArrivingMachine)


class Holdings:
    """One lock a machine; an arrival's custody is kept while it arrives, any other is opened for a while."""

    def __init__(self, journals: Journals, hypervisor: Hypervisor) -> None:
        self.journals: Final = journals
        self.hypervisor: Final = hypervisor
        self.arriving: Final[dict[str, ArrivingMachine]] = {}
        self._turns: Final = Turns()

    def alone(self, machine: str) -> AbstractAsyncContextManager[None]:
        """Let nobody else of this agent act on a machine, or change its journal; raises as Turns says."""
        return self._turns.alone(machine)

    async def last(self, machine: str) -> Record:
        """Return the journal's last record, for showing, and for refusing early: it may not be durable yet.

        Raises:
            JournalUnreadable: Nothing is known of the machine here.
        """
        return await asyncio.to_thread(self.journals.read_last, machine)

    async def standing(self, machine: str) -> Record:
        """Return the journal's last record as a peer may act on it: what an attempt came to here is durable.

        A record that was written and not flushed is read as any other. So it is written once more before it is told.
        What the host's source agent writes tells nothing of an arrival, and is read as it is.

        Raises:
            JournalUnreadable: Nothing is known of the machine here.
            Unreachable: Whether the last record stands is not known.
        """
        record = await self.last(machine)
        if record.state not in _ACTED_UPON:
            return record
        try:
            return await asyncio.to_thread(self.journals.read_durable, machine)
        except JournalUncertain as error:
            text = f"What the journal of machine {machine} says last may stand or not"
            raise Unreachable("journal-uncertain", text, "Ask again") from error

    def target(self, attempt: str, kind: type[_Arrival]) -> _Arrival:
        """Return the arrival of a kind that a stream names; its ticket is checked there.

        Raises:
            Refused: None of that kind is arriving here.
        """
        arriving = self.arriving.get(attempt)
        if not isinstance(arriving, kind):
            raise Refused("not-arriving", f"Attempt {attempt} is not arriving here in such a way", "Ask for its state")
        return arriving

    def arrival_of(self, machine: str) -> ArrivingMachine | None:
        """Return the arrival of a machine in this life of the agent."""
        return next((each for each in self.arriving.values() if each.custody.record.machine == machine), None)

    @asynccontextmanager
    async def hold(self, machine: str) -> AsyncIterator[Custody]:
        """Hold what is arriving, or what an earlier life of this agent left of it, and command its process if it lives.

        Raises:
            Stale: Another agent has the journal by now; it is that one's.
            CutOff, MachineGone: The process obeys somebody newer, or does not answer.
        """
        async with self.holding(machine) as custody:
            if self.arrival_of(machine) is None and custody.process() is Process.ALIVE:
                await custody.attach(custody.record.epoch)
            yield custody

    @asynccontextmanager
    async def holding(self, machine: str) -> AsyncIterator[Custody]:
        """Hold a machine's journal alone, and command nothing."""
        arriving = self.arrival_of(machine)
        if arriving is not None:
            try:
                yield arriving.custody
            except JournalMoved:
                await self.let_go(arriving.custody.record.attempt or "")
                raise
            return
        custody = await Custody.open(self.journals, self.hypervisor, machine)
        try:
            yield custody
        finally:
            await custody.close()

    async def let_go(self, attempt: str) -> None:
        """Let go of an arrival; its machine stays as it is."""
        arriving = self.arriving.pop(attempt, None)
        if arriving is not None:
            arriving.let_go()
            await arriving.custody.close()

    async def close(self) -> None:
        """Let go of all."""
        for attempt in list(self.arriving):
            await self.let_go(attempt)
