"""The second-stage walk: one address, or every mapping of a range (semantics 4.6).

A request is refused for a reserved bit; an enumeration leaves such an entry out, as it does one that lies outside
RAM. Enumeration is bounded: tables that point to themselves would describe 2^36 pages. A walk ends after
`TABLES_LIMIT` tables or `MAPPINGS_LIMIT` mappings, and what lies behind is not mapped: a device's access to it fails
in the host's tables as an access to an unmapped address does.
"""

from dataclasses import dataclass
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.memory.quantities import GuestPhysicalAddress
from vmm.viommu.context import SecondStage
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.iova_tree import READABLE, WRITABLE, DmaMap

TABLES_LIMIT: Final = 1 << 16
MAPPINGS_LIMIT: Final = 1 << 20
INTERRUPT_FIRST: Final = 0xFEE0_0000
INTERRUPT_LAST: Final = 0xFEEF_FFFF

_ONES: Final = (1 << 64) - 1
_IGNORED: Final = 0xBFF0_0000_0000_0000
"""Bits 63 and 61:52. Bit 62, once TM, is reserved where no device TLB is offered (VT-d 3.2 and later)."""
_LARGE: Final = 1 << 7
_SNOOP: Final = 1 << 11
_FEW: Final = 16
"""Up to so many entries, plain integers are faster than arrays."""


@dataclass(frozen=True, slots=True)
class Translation:
    """Where an address leads, and the leaf around it: `mask` is the leaf's size less one."""

    translated: GuestPhysicalAddress
    mask: int
    readable: bool
    writable: bool


def shift_of(level: int) -> int:
    """Return how many address bits lie below an entry of a level."""
    return 12 + 9 * (level - 1)


@dataclass(frozen=True, slots=True)
class EntryRules:
    """Which bits of an entry are its address, and which must be 0: by level, for tables or 4 KiB leaves and large."""

    address: int
    small: tuple[int, ...]
    large: tuple[int, ...]

    @classmethod
    def of_unit(cls, aw_bits: int, *, scalable: bool) -> "EntryRules":
        """Return the rules of a unit; SNP may be set in leaves of one that is capable of scalable mode."""
        beyond = _ONES & ~((1 << aw_bits) - 1) & ~_IGNORED
        leaf = beyond | (0 if scalable else _SNOOP)
        table = beyond | _SNOOP
        return cls(
            (1 << aw_bits) - 1 & ~0xFFF,
            (0, leaf, table, table, table | _LARGE),
            (0, leaf, leaf | 0x1FF000, leaf | 0x3FFFF000, table | _LARGE),
        )

    def reserved(self, entry: int, level: int) -> int:
        """Return the bits that must be 0 in this entry."""
        return self.large[level] if entry & _LARGE else self.small[level]


class SecondStageWalker:
    """Walks tables where they lie in guest RAM."""

    def __init__(self, memory: GuestMemory, aw_bits: int, *, scalable: bool) -> None:
        self.walks_cut = 0
        self.tables_read = 0
        self._memory: Final = memory
        self._aw_bits: Final = aw_bits
        self._rules: Final = EntryRules.of_unit(aw_bits, scalable=scalable)

    def width(self, stage: SecondStage) -> int:
        """Return how many bits an address may have."""
        return min(12 + 9 * stage.levels, self._aw_bits)

    def translate(self, stage: SecondStage, iova: int, *, write: bool) -> Translation | Fault:
        """Translate one address exactly as the unit would for a device's request."""
        disabled = stage.processing_disabled
        if iova >> self.width(stage):
            return Fault(FaultReason.BEYOND_WIDTH, disabled)
        table, permission, needed = stage.root, READABLE | WRITABLE, WRITABLE if write else READABLE
        for level in range(stage.levels, 0, -1):
            try:
                entry = self._memory.read_u64(table + (iova >> shift_of(level) & 511) * 8)
            except AccessFault:
                top = level == stage.levels
                return Fault(FaultReason.CONTEXT_INVALID if top else FaultReason.PAGING_ENTRY_ACCESS, disabled)
            permission &= entry
            if not permission & needed:
                return Fault(FaultReason.WRITE_PERMISSION if write else FaultReason.READ_PERMISSION, disabled)
            if entry & self._rules.reserved(entry, level):
                return Fault(FaultReason.PAGING_RESERVED, disabled)
            if level == 1 or entry & _LARGE:
                return self._leaf(stage, iova, entry, level, permission)
            table = entry & self._rules.address
        raise AssertionError("level 1 is always a leaf")

    def mappings(self, stage: SecondStage, first: int, last: int) -> list[DmaMap]:
        """Return every leaf that touches [first, last], whole, ascending."""
        last = min(last, (1 << self.width(stage)) - 1)
        if first > last:
            return []
        enumeration = _Enumeration(self._memory, self._rules, first, last)
        enumeration.table(stage.root, stage.levels, 0, READABLE | WRITABLE)
        self.walks_cut += enumeration.cut
        self.tables_read += enumeration.tables_read
        return enumeration.found

    def _leaf(self, stage: SecondStage, iova: int, entry: int, level: int, permission: int) -> Translation | Fault:
        mask = (1 << shift_of(level)) - 1
        translated = entry & self._rules.address & ~mask | iova & mask
        if INTERRUPT_FIRST <= translated <= INTERRUPT_LAST:
            legacy = stage.pasid is None
            reason = FaultReason.INTERRUPT_ADDRESS if legacy else FaultReason.SCALABLE_INTERRUPT_ADDRESS
            return Fault(reason, stage.processing_disabled)
        readable, writable = bool(permission & READABLE), bool(permission & WRITABLE)
        return Translation(GuestPhysicalAddress(translated), mask, readable=readable, writable=writable)


class _Enumeration:
    """One walk over a range: what it found, and how much it may still read."""

    __slots__ = ("_first", "_last", "_memory", "_rules", "cut", "found", "tables_read")

    def __init__(self, memory: GuestMemory, rules: EntryRules, first: int, last: int) -> None:
        self.found: Final[list[DmaMap]] = []
        self.cut = False
        self.tables_read = 0
        self._memory: Final = memory
        self._rules: Final = rules
        self._first: Final = first
        self._last: Final = last

    def table(self, table: int, level: int, base: int, permission: int) -> None:
        """Collect the leaves under one table; `base` is the first address that it describes."""
        if self.tables_read >= TABLES_LIMIT or len(self.found) >= MAPPINGS_LIMIT:
            self.cut = True
            return
        self.tables_read += 1
        shift = shift_of(level)
        low = max(self._first - base, 0) >> shift
        high = min(self._last - base >> shift, 511)
        try:
            entries = self._memory.words(table + low * 8, high - low + 1)
        except AccessFault:
            return
        if level == 1 and len(entries) > _FEW:
            self._pages(entries, base + (low << shift), permission)
            return
        for index, entry in _present(entries, permission):
            self._entry(entry, level, base + (low + index << shift), permission & entry)

    def _entry(self, entry: int, level: int, iova: int, permission: int) -> None:
        if entry & self._rules.reserved(entry, level):
            return
        if level == 1 or entry & _LARGE:
            mask = (1 << shift_of(level)) - 1
            self.found.append(DmaMap(iova, mask, entry & self._rules.address & ~mask, permission))
        else:
            self.table(entry & self._rules.address, level - 1, iova, permission)

    def _pages(self, entries: npt.NDArray[np.uint64], base: int, permission: int) -> None:
        # Bit 7 of a 4 KiB leaf is ignored: large[1] is small[1].
        reserved = np.uint64(self._rules.small[1])
        indexes = np.flatnonzero((entries & np.uint64(permission) != 0) & (entries & reserved == 0))
        leaves = entries[indexes]
        iovas = (base + (indexes << 12)).tolist()
        translated = (leaves & np.uint64(self._rules.address)).tolist()
        permissions = (leaves & np.uint64(permission)).tolist()
        self.found.extend(map(DmaMap, iovas, repeat(0xFFF), translated, permissions))


def _present(entries: npt.NDArray[np.uint64], permission: int) -> list[tuple[int, int]]:
    if len(entries) <= _FEW:
        return [(index, entry) for index, entry in enumerate(entries.tolist()) if entry & permission]
    indexes = np.flatnonzero(entries & np.uint64(permission))
    return list(zip(indexes.tolist(), entries[indexes].tolist(), strict=True))
