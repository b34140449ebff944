"""What an entry that maps nothing any more still holds: the address of an UNMAP as QEMU sends it (semantics 4.12).

QEMU takes the translated address of an UNMAP that a page walk finds from the entry as it is now. That entry was
cleared, mostly to 0, or maps something else already.
"""

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.viommu.context import SecondStage
from vmm.viommu.walk import shift_of

_FRAME = (1 << 52) - 1 & ~0xFFF
_LARGE = 1 << 7


def address_in_entry(memory: GuestMemory, stage: SecondStage, iova: int) -> int:
    """Return the address bits of the entry where a walk for this address ends; 0 where it meets no RAM."""
    table = stage.root
    for level in range(stage.levels, 0, -1):
        try:
            entry = memory.read_u64(table + (iova >> shift_of(level) & 511) * 8)
        except AccessFault:
            return 0
        if level == 1 or not entry & 3 or entry & _LARGE:
            return entry & _FRAME & ~((1 << shift_of(level)) - 1)
        table = entry & _FRAME
    return 0
