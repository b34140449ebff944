"""The devices' state on its way from the machine to the bulk stream: read while what came before is being sent.

::

    round, machine works    what can be read now, of devices in pre-copy; at most what was there when the round began
    last round, it stands   everything that is left, to the END of every device

Under a bandwidth a reading is no more than a frame may hold (source_agent.pacing): a machine adds up what it tells in
records, and so do the others, so that whoever sends them cannot make them shorter.

A round's barrier acknowledges what it carried, INITIAL_SENT too: `unacknowledged` speaks the truth between rounds.
"""

import asyncio
from typing import Final

from source_agent.pacing import frame_payload
from vm_migration.errors import AttemptFailed
from vm_migration.machine.port import MachinePort
from vmm.process.control import MAX_DEVICE_DATA, DeviceData
from vmm.vfio.device_records import DeviceRecord, DeviceSum, DeviceTotal

Batches = asyncio.Queue[tuple[DeviceRecord, ...] | None]
"""Records in their order, of which None is the end; bounded, so that what is read waits for what is sent."""

_WHILE_IT_WORKS: Final = 1 << 20
"""Bytes of one reading for which the guest of a running machine is kept waiting: about a millisecond."""


class DeviceFlow:
    """The devices' side of one attempt."""

    def __init__(self, machine: MachinePort) -> None:
        self.left_bytes = 0
        """What a stop would leave to be moved, as the host told at the last reading."""
        self.unacknowledged: tuple[str, ...] = ()
        """Devices in pre-copy whose initial data the destination does not have."""
        self._machine: Final = machine
        self._most = MAX_DEVICE_DATA
        self._sum: Final = DeviceSum()

    @property
    def total(self) -> DeviceTotal:
        """What has been read so far."""
        return self._sum.total

    def limit(self, bytes_per_second: int, streams: int) -> None:
        """Read no more at a time than a frame holds under a bandwidth, from the next reading on; 0 does not limit."""
        self._most = frame_payload(bytes_per_second, streams) if bytes_per_second else MAX_DEVICE_DATA

    async def read(self, into: Batches, *, to_end: bool) -> None:
        """Read a round's share, or all that is left of a machine stopped for the attempt.

        Raises:
            AttemptFailed: A machine that stands still has no more to give, and not all was read.
            MachineError: The machine did not answer, or a device failed.
        """
        found = await self._next(into, to_end=to_end)
        first = self._sum.total.data_bytes
        share = found.precopy_bytes
        while found.records and not found.complete and (to_end or self._sum.total.data_bytes - first < share):
            found = await self._next(into, to_end=to_end)
        if to_end and not found.complete:
            text = "The devices' state could not be read to its end"
            raise AttemptFailed("device-state-incomplete", text, "The machine goes on at its source; try again")
        await into.put(None)

    async def _next(self, into: Batches, *, to_end: bool) -> DeviceData:
        most = self._most if to_end else min(self._most, _WHILE_IT_WORKS)
        found = await self._machine.read_device_data(most)
        self.left_bytes = found.precopy_bytes + found.stop_copy_bytes
        self.unacknowledged = found.initial_pending
        for record in found.records:
            self._sum.add(record)
        if found.records:
            await into.put(found.records)
        return found
