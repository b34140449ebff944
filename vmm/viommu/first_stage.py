"""The first-stage walk of one address, with accessed and dirty bits (semantics 4.7).

Tables have four levels; five are not offered. All requests are a user's, as no supervisor requests are offered with
first-stage tables. Two rules where QEMU's code is less exact than the architecture: the dirty bit is set also in a leaf
that has the accessed bit already, and addresses are canonical by the four levels, whatever the PASID entry's AW says.
"""

from typing import Final

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import GuestPhysicalAddress
from vmm.viommu.context import FirstStage
from vmm.viommu.entry_rules import INTERRUPT_FIRST, INTERRUPT_LAST
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.table_words import TableWords
from vmm.viommu.walk import Translation

LEVELS: Final = 4
PRESENT: Final = 1 << 0
WRITE: Final = 1 << 1
USER: Final = 1 << 2
ACCESSED: Final = 1 << 5
DIRTY: Final = 1 << 6
_LARGE: Final = 1 << 7
_ADDRESS: Final = (1 << 52) - 1 & ~0xFFF
_NEGATIVE: Final = (1 << 17) - 1
"""Bits 63:47 of an address are all 0 or all 1."""


class FirstStageWalker:
    """Walks tables where they lie in guest RAM; sets bits there, which marks their pages as written.

    `huge` says whether leaves of 1 GiB are offered (CAP.FS1GP).
    """

    def __init__(self, memory: GuestMemory, aw_bits: int, *, huge: bool) -> None:
        self._memory: Final = memory
        self._words: Final = TableWords(memory)
        beyond = _ADDRESS & ~((1 << aw_bits) - 1)
        self._small: Final = (0, beyond, beyond, beyond, beyond | _LARGE)
        # Bit 12 of a large leaf is PAT. Bits 63:52 are ignored at every level.
        third = beyond | 0x3FFFE000 if huge else beyond | _LARGE
        self._large: Final = (0, beyond, beyond | 0x1FE000, third, beyond | _LARGE)
        self._address: Final = (1 << aw_bits) - 1 & ~0xFFF

    def translate(self, stage: FirstStage, iova: int, *, write: bool) -> Translation | Fault:
        """Translate one address. What was walked keeps its accessed bits also when the walk ends in a fault."""
        disabled = stage.processing_disabled
        if iova >> 47 not in {0, _NEGATIVE}:
            return Fault(FaultReason.NOT_CANONICAL, disabled)
        table, writable = stage.root, WRITE
        for level in range(LEVELS, 0, -1):
            place = table + (iova >> 9 * level & 0xFF8)
            entry = self._words.read(place)
            if entry is None:
                top = level == LEVELS
                return Fault(
                    FaultReason.FIRST_STAGE_TABLE_ACCESS if top else FaultReason.FIRST_STAGE_ENTRY_ACCESS, disabled
                )
            refusal = self._refusal(entry, level, write=write)
            if refusal is not None:
                return Fault(refusal, disabled)
            writable &= entry
            leaf = level == 1 or bool(entry & _LARGE)
            bits = ACCESSED | (DIRTY if leaf and write else 0)
            if entry & bits != bits:
                self._memory.write_u64(place, entry | bits)
            if leaf:
                return self._leaf(stage, iova, entry, level, writable=bool(writable))
            table = entry & self._address
        raise AssertionError("level 1 is always a leaf")

    def _refusal(self, entry: int, level: int, *, write: bool) -> FaultReason | None:
        if not entry & PRESENT:
            return FaultReason.FIRST_STAGE_NOT_PRESENT
        if not entry & USER:
            return FaultReason.USER_PRIVILEGE
        if write and not entry & WRITE:
            return FaultReason.FIRST_STAGE_WRITE
        if entry & (self._large[level] if entry & _LARGE else self._small[level]):
            return FaultReason.FIRST_STAGE_RESERVED
        return None

    def _leaf(self, stage: FirstStage, iova: int, entry: int, level: int, *, writable: bool) -> Translation | Fault:
        mask = (1 << 9 * level + 3) - 1
        translated = entry & self._address & ~mask | iova & mask
        if INTERRUPT_FIRST <= translated <= INTERRUPT_LAST:
            return Fault(FaultReason.SCALABLE_INTERRUPT_ADDRESS, stage.processing_disabled)
        return Translation(GuestPhysicalAddress(translated), mask, readable=True, writable=writable)
