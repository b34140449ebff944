"""The link of a rehearsal: bytes cost virtual time, during which the source's world goes on."""

from dataclasses import dataclass
from typing import Final

from lab.rehearsal.world import World
from vm_migration.transfer.frames import Frame, Zeros
from vm_migration.transfer.page_runs import page_count
from vm_migration.wire.frame import decode, encode
from vmm.memory.quantities import PAGE_SIZE


@dataclass(slots=True)
class Link:
    """Carries messages in their order at `bandwidth` bytes a second, without loss.

    With `zeros_stand_for_data` a page of zeros is charged as if its 4096 bytes had travelled: the scenario's RAM is
    sparse, and what nobody touched stands for data.
    """

    world: World
    bandwidth: int
    zeros_stand_for_data: bool
    wire_bytes: int = 0
    _owed: int = 0

    def carry(self, frame: Frame) -> Frame:
        """Carry a frame as bytes, let the time that it takes pass, and return what arrives."""
        message = encode(frame)
        charged = len(message)
        if self.zeros_stand_for_data and isinstance(frame.body, Zeros):
            charged += page_count(frame.body.runs) * PAGE_SIZE
        self.charge(charged)
        return decode(message)

    def charge(self, count: int) -> None:
        """Let the time pass that so many bytes take; fractions of a nanosecond are kept for the next."""
        self.wire_bytes += count
        total = count * _SECOND + self._owed
        self._owed = total % self.bandwidth
        self.world.run_until(self.world.now_ns + total // self.bandwidth)


_SECOND: Final = 1_000_000_000
