"""The second-stage walk: one address, or every mapping of a range (semantics 4.6).

A request is refused for a reserved bit; an enumeration leaves such an entry out, as it does one that lies outside
RAM. Enumeration is bounded: tables that point to themselves would describe 2^36 pages. A walk ends after
`TABLES_LIMIT` tables or `MAPPINGS_LIMIT` mappings, and what lies behind is not mapped: a device's access to it fails
in the host's tables as an access to an unmapped address does.

The second stage has no accessed and dirty bits here: QEMU's does not offer them (ECAP.SSADS). Those that devices set
are the host's (`vfio_host`), in tables that the guest never sees.
"""

from itertools import repeat
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.memory.quantities import GuestPhysicalAddress
from vmm.viommu.batch_walk import BatchTranslation, BatchWalk
from vmm.viommu.context import SecondStage
from vmm.viommu.entry_rules import INTERRUPT_FIRST, INTERRUPT_LAST, LARGE, EntryRules, shift_of
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.iova_tree import READABLE, WRITABLE, DmaMap
from vmm.viommu.table_words import TableWords

__all__ = ["INTERRUPT_FIRST", "INTERRUPT_LAST", "EntryRules", "SecondStageWalker", "Translation", "shift_of"]

TABLES_LIMIT: Final = 1 << 16
MAPPINGS_LIMIT: Final = 1 << 20

_FEW: Final = 16
"""Up to so many entries, plain integers are faster than arrays."""


class Translation(msgspec.Struct, frozen=True, gc=False):
    """Where an address leads, and the leaf around it: `mask` is the leaf's size less one. Made per access."""

    translated: GuestPhysicalAddress
    mask: int
    readable: bool
    writable: bool


class SecondStageWalker:
    """Walks tables where they lie in guest RAM."""

    def __init__(
        self,
        memory: GuestMemory,
        aw_bits: int,
        *,
        scalable: bool,
        snoop_control: bool = False,
        transient: bool = False,
    ) -> None:
        self.walks_cut = 0
        self.tables_read = 0
        self._memory: Final = memory
        self._table_words: Final = TableWords(memory)
        self._aw_bits: Final = aw_bits
        self._rules: Final = EntryRules.of_unit(aw_bits, snoop=scalable or snoop_control, transient=transient)

    def width(self, stage: SecondStage) -> int:
        """Return how many bits an address may have."""
        return min(12 + 9 * stage.levels, self._aw_bits)

    def translate(self, stage: SecondStage, iova: int, *, write: bool) -> Translation | Fault:
        """Translate one address exactly as the unit would for a device's request."""
        level = stage.levels
        if iova >> min(12 + 9 * level, self._aw_bits):
            return Fault(FaultReason.BEYOND_WIDTH, stage.processing_disabled)
        words, low_end = self._table_words.words, self._table_words.low_end
        rules = self._rules
        small, large, address_bits = rules.small, rules.large, rules.address
        table, permission, needed = stage.root, READABLE | WRITABLE, WRITABLE if write else READABLE
        while True:
            address = table + (iova >> 9 * level & 0xFF8)
            entry = words[address >> 3] if address < low_end else self._table_words.above(address)
            if entry is None:
                return _no_entry(stage, level)
            permission &= entry
            if not permission & needed:
                reason = FaultReason.WRITE_PERMISSION if write else FaultReason.READ_PERMISSION
                return Fault(reason, stage.processing_disabled)
            # A 4 KiB leaf has the same rules either way; bit 7 of a top-level entry is itself reserved.
            if entry & LARGE or level == 1:
                if entry & large[level]:
                    return Fault(FaultReason.PAGING_RESERVED, stage.processing_disabled)
                return self._leaf(stage, iova, entry, level, permission)
            if entry & small[level]:
                return Fault(FaultReason.PAGING_RESERVED, stage.processing_disabled)
            table = entry & address_bits
            level -= 1

    def translate_batch(self, stage: SecondStage, iovas: npt.NDArray[np.uint64], *, write: bool) -> BatchTranslation:
        """Translate many addresses as `translate` does each."""
        return BatchWalk(self._table_words, self._rules, stage, self.width(stage), write).translate(iovas)

    def address_in(self, stage: SecondStage, iova: int) -> int:
        """Return the address bits of the entry at which a walk of an address ends, present or not; 0 without one."""
        table, level = stage.root, stage.levels
        while (entry := self._table_words.read(table + (iova >> shift_of(level) & 511) * 8)) is not None:
            if level == 1 or entry & LARGE or not entry & (READABLE | WRITABLE):
                return entry & self._rules.address
            table, level = entry & self._rules.address, level - 1
        return 0

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
        readable, writable = permission & READABLE != 0, permission & WRITABLE != 0
        return Translation(GuestPhysicalAddress(translated), mask, readable, writable)


def _no_entry(stage: SecondStage, level: int) -> Fault:
    top = level == stage.levels
    reason = FaultReason.CONTEXT_INVALID if top else FaultReason.PAGING_ENTRY_ACCESS
    return Fault(reason, stage.processing_disabled)


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
        if level == 1 or entry & LARGE:
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
