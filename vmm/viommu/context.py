"""From a device to its translation: root, context, PASID directory and PASID entry (semantics 4.5)."""

from dataclasses import dataclass
from typing import Final

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.viommu.faults import Fault, FaultReason

_ONES: Final = (1 << 64) - 1
_FRAME: Final = _ONES & ~0xFFF
_SECOND_STAGE: Final = 2
_PASS_THROUGH: Final = 4


@dataclass(frozen=True, slots=True)
class RootTable:
    """What the guest set with SRTP."""

    address: int
    scalable: bool


@dataclass(frozen=True, slots=True)
class SecondStage:
    """The device's requests are translated by second-stage tables. `pasid` is RID_PASID, None in legacy mode."""

    root: int
    levels: int
    domain_id: int
    pasid: int | None
    processing_disabled: bool


@dataclass(frozen=True, slots=True)
class PassThrough:
    """The device sees guest-physical addresses."""

    domain_id: int
    pasid: int | None


Binding = SecondStage | PassThrough


class ContextReader:
    """Reads the structures where they lie in guest RAM; nothing is cached, as nothing may be stale."""

    def __init__(self, memory: GuestMemory, aw_bits: int, *, pass_through: bool = True) -> None:
        self._memory: Final = memory
        self._beyond: Final = _ONES & ~((1 << aw_bits) - 1)
        self._levels: Final = frozenset({3, 4}) if aw_bits >= 48 else frozenset({3})
        self._pass_through: Final = pass_through

    def look_up(self, table: RootTable, devfn: int) -> Binding | Fault:
        """Return how the guest has set the device of bus 0 up, or the fault that its requests meet."""
        root = self._read(table.address, 2)
        if root is None:
            return Fault(FaultReason.ROOT_TABLE_ACCESS)
        entry = root[devfn >> 7] if table.scalable else root[0]
        if not entry & 1:
            return Fault(FaultReason.ROOT_NOT_PRESENT)
        reserved = 0xFFE | self._beyond
        if root[0] & reserved or root[1] & (reserved if table.scalable else _ONES):
            return Fault(FaultReason.ROOT_RESERVED)
        if table.scalable:
            return self._scalable(entry & _FRAME, devfn)
        return self._legacy(entry & _FRAME, devfn)

    def _legacy(self, contexts: int, devfn: int) -> Binding | Fault:
        entry = self._read(contexts + devfn * 16, 2)
        if entry is None:
            return Fault(FaultReason.CONTEXT_TABLE_ACCESS)
        low, high = entry
        disabled = bool(low & 2)
        if not low & 1:
            return Fault(FaultReason.CONTEXT_NOT_PRESENT, disabled)
        if low & (0xFF0 | self._beyond) or high & 0xFFFF_FFFF_FF00_0080:
            return Fault(FaultReason.CONTEXT_RESERVED, disabled)
        levels, kind, domain_id = 2 + (high & 7), low >> 2 & 3, high >> 8 & 0xFFFF
        if levels in self._levels and kind == 0:
            return SecondStage(low & _FRAME, levels, domain_id, None, disabled)
        if levels in self._levels and kind == 2 and self._pass_through:
            return PassThrough(domain_id, None)
        # A device TLB (kind 1) is not offered (ECAP.DT), kind 3 is reserved.
        return Fault(FaultReason.CONTEXT_INVALID, disabled)

    def _scalable(self, contexts: int, devfn: int) -> Binding | Fault:
        entry = self._read(contexts + (devfn & 0x7F) * 32, 4)
        if entry is None:
            return Fault(FaultReason.CONTEXT_TABLE_ACCESS)
        disabled = bool(entry[0] & 2)
        if not entry[0] & 1:
            return Fault(FaultReason.CONTEXT_NOT_PRESENT, disabled)
        if entry[0] & (0x1E0 | self._beyond) or entry[1] & ~0x1F_FFFF or entry[2] or entry[3]:
            return Fault(FaultReason.CONTEXT_RESERVED, disabled)
        pasid = entry[1] & 0xFFFFF
        directory = self._read((entry[0] & _FRAME) + (pasid >> 6 & 0x3FFF) * 8, 1)
        if directory is None:
            return Fault(FaultReason.PASID_DIRECTORY_ACCESS, disabled)
        disabled = disabled or bool(directory[0] & 2)
        if not directory[0] & 1:
            return Fault(FaultReason.PASID_DIRECTORY_NOT_PRESENT, disabled)
        return self._pasid_entry(directory[0] & _FRAME, pasid, disabled=disabled)

    def _pasid_entry(self, table: int, pasid: int, *, disabled: bool) -> Binding | Fault:
        entry = self._read(table + (pasid & 0x3F) * 64, 8)
        if entry is None:
            return Fault(FaultReason.PASID_TABLE_ACCESS, disabled)
        disabled = disabled or bool(entry[0] & 2)
        if not entry[0] & 1:
            return Fault(FaultReason.PASID_NOT_PRESENT, disabled)
        levels, kind, domain_id = 2 + (entry[0] >> 2 & 7), entry[0] >> 6 & 7, entry[1] & 0xFFFF
        if kind == _PASS_THROUGH and self._pass_through:
            return PassThrough(domain_id, pasid)
        if kind == _SECOND_STAGE and levels in self._levels:
            return SecondStage(entry[0] & _FRAME, levels, domain_id, pasid, disabled)
        return Fault(FaultReason.PASID_INVALID, disabled)

    def _read(self, address: int, count: int) -> list[int] | None:
        try:
            words: list[int] = self._memory.words(address, count).tolist()
        except AccessFault:
            return None
        return words
