"""Batches of device state on their way into the machine: one is written while the next one is received."""

import asyncio
from collections.abc import Sequence
from typing import Final

from vm_migration.machine.port import MachinePort
from vmm.vfio.device_records import DeviceRecord


class DeviceWriting:
    """Writes batches in the order in which they are given."""

    def __init__(self, machine: MachinePort) -> None:
        self._machine: Final = machine
        self._under_way: asyncio.Task[None] | None = None

    async def give(self, records: Sequence[DeviceRecord]) -> None:
        """Begin to write a batch, once the one before is written.

        Raises:
            MachineError: The machine did not take the one before.
        """
        await self.settled()
        writing = self._machine.write_device_data(records)
        self._under_way = asyncio.create_task(writing, name="device state into the machine")

    async def settled(self) -> None:
        """Wait until everything that was given is written.

        Raises:
            MachineError: The machine did not take it.
        """
        writing, self._under_way = self._under_way, None
        if writing is not None:
            await writing

    def abandon(self) -> None:
        """Wait for nothing any more; what is under way may still be written."""
        if self._under_way is not None:
            self._under_way.cancel()
            self._under_way = None
