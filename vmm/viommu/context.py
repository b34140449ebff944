"""From a device to its translation: root, context, PASID directory and PASID entry (semantics 4.5)."""

from dataclasses import dataclass
from typing import Final

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.viommu.faults import Fault, FaultReason

_ONES: Final = (1 << 64) - 1
_FRAME: Final = _ONES & ~0xFFF
_FIRST_STAGE: Final = 1
_SECOND_STAGE: Final = 2
_PASS_THROUGH: Final = 4
_PASID_RESERVED: Final = (0xE00, 0x7F_0000, 0xF82, _ONES, _ONES, _ONES, _ONES, _ONES)
"""Reserved bits of a PASID entry, by word, but those of table addresses. Among them, as their capabilities are not
offered: the second stage's accessed and dirty bits (SSADE), execute requests and extended accessed bits."""


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
class FirstStage:
    """The device's requests are translated by first-stage tables of four levels, in scalable mode only."""

    root: int
    domain_id: int
    pasid: int
    processing_disabled: bool


@dataclass(frozen=True, slots=True)
class PassThrough:
    """The device sees guest-physical addresses."""

    domain_id: int
    pasid: int | None


Binding = SecondStage | FirstStage | PassThrough


class ContextReader:
    """Reads the structures where they lie in guest RAM; nothing is cached, as nothing may be stale.

    Checks come in the order of QEMU's, and where QEMU has none (reserved bits and bounds of PASID structures) in that
    of the structures. A unit with first-stage tables offers no second-stage ones to PASID entries.
    """

    def __init__(
        self,
        memory: GuestMemory,
        aw_bits: int,
        *,
        pass_through: bool = True,
        first_stage: bool = False,
        device_iotlb: bool = False,
    ) -> None:
        self._memory: Final = memory
        self._beyond: Final = _ONES & ~((1 << aw_bits) - 1)
        self._levels: Final = frozenset({3, 4}) if aw_bits >= 48 else frozenset({3})
        self._pass_through: Final = pass_through
        self._first_stage: Final = first_stage
        self._multi_level: Final = frozenset({0, 1}) if device_iotlb else frozenset({0})

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
        if levels in self._levels and kind in self._multi_level:
            return SecondStage(low & _FRAME, levels, domain_id, None, disabled)
        if levels in self._levels and kind == 2 and self._pass_through:
            return PassThrough(domain_id, None)
        # Kind 3 is reserved, kind 1 needs a device TLB (ECAP.DT). QEMU has both as an invalid entry, not as 0xd.
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
        if pasid >> 6 >= 128 << (entry[0] >> 9 & 7):
            return Fault(FaultReason.RID_PASID, disabled)
        return self._directory(entry[0] & _FRAME, pasid, disabled=disabled)

    def _directory(self, table: int, pasid: int, *, disabled: bool) -> Binding | Fault:
        directory = self._read(table + (pasid >> 6) * 8, 1)
        if directory is None:
            return Fault(FaultReason.PASID_DIRECTORY_ACCESS, disabled)
        disabled = disabled or bool(directory[0] & 2)
        if not directory[0] & 1:
            return Fault(FaultReason.PASID_DIRECTORY_NOT_PRESENT, disabled)
        if directory[0] & (0xFFC | self._beyond):
            return Fault(FaultReason.PASID_DIRECTORY_RESERVED, disabled)
        entry = self._read((directory[0] & _FRAME) + (pasid & 0x3F) * 64, 8)
        if entry is None:
            return Fault(FaultReason.PASID_TABLE_ACCESS, disabled)
        return self._pasid_entry(entry, pasid, disabled=disabled or bool(entry[0] & 2))

    def _pasid_entry(self, entry: list[int], pasid: int, *, disabled: bool) -> Binding | Fault:
        if not entry[0] & 1:
            return Fault(FaultReason.PASID_NOT_PRESENT, disabled)
        if any(word & reserved for word, reserved in zip(entry, _PASID_RESERVED, strict=True)):
            return Fault(FaultReason.PASID_RESERVED, disabled)
        kind, domain_id = entry[0] >> 6 & 7, entry[1] & 0xFFFF
        if kind == _PASS_THROUGH and self._pass_through:
            return PassThrough(domain_id, pasid)
        # Nesting (kind 3) is out of scope: such an entry is invalid, as one of an unknown kind.
        if kind != (_FIRST_STAGE if self._first_stage else _SECOND_STAGE):
            return Fault(FaultReason.PASID_INVALID, disabled)
        return self._tables(entry, pasid, disabled=disabled)

    def _tables(self, entry: list[int], pasid: int, *, disabled: bool) -> Binding | Fault:
        domain_id, levels = entry[1] & 0xFFFF, 2 + (entry[0] >> 2 & 7)
        root = entry[2] if self._first_stage else entry[0]
        if root & self._beyond:
            return Fault(FaultReason.PASID_RESERVED, disabled)
        # FSPM other than 0 asks for five first-stage levels or more, which are not offered.
        if entry[2] >> 2 & 3 if self._first_stage else levels not in self._levels:
            return Fault(FaultReason.PASID_INVALID, disabled)
        if self._first_stage:
            return FirstStage(root & _FRAME, domain_id, pasid, disabled)
        return SecondStage(root & _FRAME, levels, domain_id, pasid, disabled)

    def _read(self, address: int, count: int) -> list[int] | None:
        try:
            words: list[int] = self._memory.words(address, count).tolist()
        except AccessFault:
            return None
        return words
