"""What a person does to the machines of a host: create, pause, resume, measure, destroy."""

import asyncio
from typing import Final
from uuid import UUID, uuid4

from source_agent.console import asleep_or_awake
from source_agent.dirty_rate import DirtyRate, measure
from source_agent.doubts import Doubts
from source_agent.holdings import Holding, Holdings
from vm_migration.daemon.host_offer import HostOffer, unmet
from vm_migration.errors import InvalidInput, Refused
from vm_migration.handover.custody import Custody
from vm_migration.handover.ownership import create, destroyed, owe_run_state, require_owner, run_confirmed
from vm_migration.handover.record import Record
from vm_migration.machine.errors import LaunchFailed
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.windows import LONGEST_WINDOW_MS, SHORTEST_WINDOW_MS
from vmm.assembly.quantity_text import format_size
from vmm.assembly.specification import MachineSpecification


class Machines:
    """Goes through each machine's journal, and is refused while an attempt is open there."""

    def __init__(
        self,
        host: str,
        holdings: Holdings,
        memory_budget: int,
        doubts: Doubts | None = None,
        *,
        offer: HostOffer | None = None,
    ) -> None:
        self._offer: Final = HostOffer() if offer is None else offer
        self._doubts: Final = Doubts() if doubts is None else doubts
        self._host: Final = host
        self._holdings: Final = holdings
        self._memory_budget: Final = memory_budget
        self._creating: Final = asyncio.Lock()

    async def create(self, specification: MachineSpecification) -> Holding:
        """Start a machine that this host owns.

        Raises:
            Refused: A machine of that name is here, memory is short, or it has what this host does not offer; nothing
                was started.
            LaunchFailed: Its processes did not come up; nothing is left of them.
        """
        specification = self._holdings.hypervisor.settled(specification)
        lacking = (*unmet(self._offer, specification, self._host), *self._holdings.hypervisor.unmet(specification))
        if lacking:
            text = "; ".join(one.message for one in lacking)
            raise Refused(lacking[0].code, text, "Choose another host, or change [offer] there")
        async with self._creating:
            self._require_room(specification.memory.size)
            if any(each.specification.name == specification.name for each in await self._holdings.all()):
                text = f"A machine called {specification.name} is on {self._host} already"
                raise Refused("machine-exists", text, "Choose another name, or destroy that machine first")
            machine = uuid4()
            place = await self._launched(machine, specification)
            instance = place.instance()
            first = create(
                str(machine),
                instance="" if instance is None else instance.name,
                was_running=True,
                specification=specification.to_json().decode(),
            )
            self._holdings.adopt(await self._in_custody(place, first))
        return await self._holdings.look(place)

    async def set_running(self, name: str, *, running: bool) -> Holding:
        """Pause or resume a machine, journalled before its process is told; refused while an attempt is open."""
        holding = await self._holdings.find(name)
        if running:
            self._doubts.require_none(holding.record.machine)
        async with self._holdings.hold(holding.record.machine) as custody:
            await custody.write(lambda record: owe_run_state(record, running=running))
            if running:
                await custody.port.run(custody.record.owned_epoch)
            else:
                await custody.port.pause(for_attempt=False)
            answer = await custody.answer()
            await custody.write(lambda record: run_confirmed(record, answer))
            return await self._holdings.look(custody.place)

    async def set_awake(self, name: str, *, awake: bool) -> Holding:
        """Have a guest suspend to RAM, or wake, and wait until it has; refused while an attempt is open.

        Raises:
            Refused: Its vCPUs stand still, it has no console, or it takes longer than that; then it may do it yet.
        """
        holding = await self._holdings.find(name)
        async with self._holdings.hold(holding.record.machine) as custody:
            require_owner(custody.record)
            await asleep_or_awake(custody.port, holding.specification.name, awake=awake)
            return await self._holdings.look(custody.place)

    async def dirty_rate(self, name: str, window_ms: int) -> tuple[Holding, DirtyRate]:
        """Log a machine's writes for a while; refused while an attempt is open, and none opens meanwhile.

        Raises:
            InvalidInput: The window is too short or too long.
            Refused: An attempt is open, whose bits these are, or the machine is not this host's.
        """
        if not SHORTEST_WINDOW_MS <= window_ms <= LONGEST_WINDOW_MS:
            text = f"Window of {window_ms} ms is not within {SHORTEST_WINDOW_MS} and {LONGEST_WINDOW_MS} ms"
            raise InvalidInput("invalid-window", text, "Choose another --window")
        holding = await self._holdings.find(name)
        async with self._holdings.hold(holding.record.machine) as custody:
            require_owner(custody.record)
            rate = await measure(custody.port, window_ms)
            return await self._holdings.look(custody.place), rate

    async def destroy(self, name: str) -> Holding:
        """End a machine; refused while an attempt is open. Its tombstone stays."""
        holding = await self._holdings.find(name)
        machine = holding.record.machine
        self._doubts.require_none(machine)
        async with self._holdings.hold(machine) as custody:
            record = await custody.write(destroyed)
            await custody.take_away(kill=False)
        await self._holdings.drop(machine)
        return Holding(record, holding.specification, None)

    async def _in_custody(self, place: MachinePlace, first: Record) -> Custody:
        """Write a new machine's journal and take command; nothing is left of the machine when this fails."""
        try:
            journal = await asyncio.to_thread(self._holdings.journals.create, first)
        except Exception:
            await self._holdings.hypervisor.take_away(place, None)
            raise
        custody = Custody(journal, place, self._holdings.hypervisor)
        try:
            await custody.attach(custody.record.owned_epoch)
            answer = await custody.answer()
            await custody.write(lambda record: run_confirmed(record, answer))
        except Exception:
            await custody.write(destroyed)
            await self._holdings.hypervisor.take_away(place, None)
            await custody.close()
            raise
        return custody

    async def _launched(self, machine: UUID, specification: MachineSpecification) -> MachinePlace:
        try:
            return await self._holdings.hypervisor.launch(machine, specification, incoming=False)
        except LaunchFailed as error:
            raise Refused("launch-failed", str(error), "Look at the specification and the host") from error

    def _require_room(self, size: int) -> None:
        used = self._holdings.memory_in_use()
        if used + size > self._memory_budget:
            left = format_size(max(0, self._memory_budget - used))
            text = f"{self._host} has {left} left of its memory budget; {format_size(size)} are needed"
            raise Refused("no-memory", text, "Raise [agent] memory_budget, or move a machine away")
