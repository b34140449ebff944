"""The devices' state on the simulated link: what can be read while they work, and the rest once they stand still."""

from typing import Final

from lab.rehearsal.link import Link
from lab.rehearsal.side import Side
from vmm.vfio.device_stream import DeviceRead

_BUDGET: Final = 16 << 20
"""Bytes in one round; of a device with more, the rest goes in the next."""
_RECORD_BYTES: Final = 64
"""What a record takes beside its data."""


class DeviceStateStream:
    """Carries the records of a source's devices to a destination's, in their order."""

    def __init__(self, source: Side, target: Side, link: Link) -> None:
        self._source: Final = source
        self._target: Final = target
        self._link: Final = link

    def carry_some(self) -> bool:
        """Carry what devices in pre-copy have now; return whether none keeps its destination waiting (7.7)."""
        return not self._carry().initial_pending

    def carry_rest(self) -> None:
        """Carry everything of devices that stand still."""
        while not self._carry().complete:
            pass

    def _carry(self) -> DeviceRead:
        found = self._source.machine.read_device_data(_BUDGET)
        for record in found.records:
            self._link.charge(_RECORD_BYTES + len(record.data))
            self._target.machine.write_device_data((record,))
        return found
