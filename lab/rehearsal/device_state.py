"""The devices' state as a rehearsal reads it: as source_agent.device_flow does, without waiting for anybody.

::

    round, machine works    what can be read now, of devices in pre-copy; at most what was there when the round began
    last round, it stands   everything that is left, to the END of every device
"""

from collections.abc import Iterator
from typing import Final

from vmm.assembly.machine import Machine
from vmm.vfio.device_records import DeviceRecord
from vmm.vfio.device_stream import DeviceRead

_WHILE_IT_WORKS: Final = 1 << 20
_ONCE_IT_STANDS: Final = 8 << 20


class DeviceStateReader:
    """One attempt's side of the devices; asked anew before each round, it tells what is left."""

    def __init__(self, machine: Machine) -> None:
        self.left_bytes = 0
        self.unacknowledged: tuple[str, ...] = ()
        """Devices in pre-copy whose initial data the destination does not have."""
        self._machine: Final = machine

    def records(self, *, to_end: bool) -> Iterator[DeviceRecord]:
        """Yield a round's records; the simulated destination has applied each when the next is asked for.

        Raises:
            HostCallFailed: A device's state is incomplete.
        """
        found = self._next(to_end=to_end)
        share, read = found.pending.precopy + _data_bytes(found), 0
        while found.records:
            yield from found.records
            read += _data_bytes(found)
            if found.complete or not (to_end or read < share):
                return
            found = self._next(to_end=to_end)

    def _next(self, *, to_end: bool) -> DeviceRead:
        found = self._machine.read_device_data(_ONCE_IT_STANDS if to_end else _WHILE_IT_WORKS)
        self.left_bytes, self.unacknowledged = found.pending.total, found.initial_pending
        return found


def _data_bytes(found: DeviceRead) -> int:
    return sum(len(record.data) for record in found.records)
