"""What a host has of machines, for people who look: every journal, and what its process says, asked without commanding.

Nothing here is decided on: a record that is read may not be durable yet. A process that is alive and silent is told as
that, after `ANSWER_SECONDS`; it holds up no other machine's answer.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Final

from vm_migration.api.v1 import types_pb2
from vm_migration.errors import MigrationError
from vm_migration.handover.evidence import Process
from vm_migration.handover.headings import name_in
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import Record, encode
from vm_migration.machine.errors import MachineError
from vm_migration.machine.hypervisor import Hypervisor, MachinePlace
from vmm.process.control import Description

ANSWER_SECONDS: Final = 2.0
_AT_ONCE: Final = 16
"""Machines that are looked at side by side."""

Complain = Callable[[str], str]
"""What an agent waits for, or refuses to do, with a machine (its UUID); empty when nothing."""


def no_complaint(_machine: str) -> str:
    """Complain about nothing."""
    return ""


class Custodies:
    """Looks at all machines of one host."""

    def __init__(self, journals: Journals, hypervisor: Hypervisor, complain: Complain) -> None:
        self._journals: Final = journals
        self._hypervisor: Final = hypervisor
        self._complain: Final = complain
        self._closing: Final[set[asyncio.Task[None]]] = set()

    async def look(self) -> list[types_pb2.MachineCustody]:
        """Return every journal of the host, by machine, with its process."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def in_turn(machine: str) -> types_pb2.MachineCustody:
            async with turn:
                return await self._custody(machine)

        machines = await asyncio.to_thread(self._journals.machines)
        return list(await asyncio.gather(*map(in_turn, machines)))

    async def _custody(self, machine: str) -> types_pb2.MachineCustody:
        custody = types_pb2.MachineCustody(machine=machine, process=Process.UNKNOWN, complaint=self._complain(machine))
        try:
            record = await asyncio.to_thread(self._journals.read_last, machine)
        except MigrationError as error:
            custody.unreadable = error.message
            return custody
        custody.name = name_in(record)
        custody.record = encode(record.public()).decode()
        living = self._hypervisor.instance_lives(record.instance)
        if living is not None:
            custody.process = Process.ALIVE if living else Process.GONE
        if living:
            described = await self._described(self._hypervisor.of_text(machine), record)
            if described is not None:
                custody.run_state = described.run_state
                custody.pause = described.pause
                custody.controller = described.controller
                custody.strayed = described.strayed
        return custody

    async def _described(self, place: MachinePlace, record: Record) -> Description | None:
        instance = place.instance()
        if instance is None or instance.name != record.instance:
            return None
        port = self._hypervisor.connect(place)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                said = await port.describe()
        except (MachineError, TimeoutError):
            return None
        finally:
            self._spawn(port.close())  # a request that nobody answers keeps the connection for a while
        return said if said.instance == instance.token else None

    def _spawn(self, closing: Coroutine[object, object, None]) -> None:
        async def close() -> None:
            with suppress(MachineError):
                await closing

        task = asyncio.create_task(close(), name="close a look at a machine")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
