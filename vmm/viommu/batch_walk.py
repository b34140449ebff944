"""The second-stage walk of many addresses at once, by arrays (semantics 4.6).

It gives what the walk of each address alone gives. Addresses need no order; a walk reads at most four entries each.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vmm.viommu.context import SecondStage
from vmm.viommu.entry_rules import INTERRUPT_FIRST, INTERRUPT_LAST, EntryRules
from vmm.viommu.entry_rules import LARGE as LARGE_BIT
from vmm.viommu.faults import FaultReason
from vmm.viommu.iova_tree import READABLE, WRITABLE
from vmm.viommu.table_words import TableWords

U64 = npt.NDArray[np.uint64]

_CHUNK: Final = 1 << 14
"""So many addresses at a time keep their arrays in the processor's cache."""
_LARGE: Final = np.uint64(LARGE_BIT)


@dataclass(frozen=True, slots=True)
class BatchTranslation:
    """Where each address leads, and the fault of each: 0, or its reason with nothing meant by `translated`."""

    translated: U64
    reasons: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class BatchWalk:
    """A walk of one binding's tables, for reading or for writing; `width` is how many bits an address may have."""

    words: TableWords
    rules: EntryRules
    stage: SecondStage
    width: int
    write: bool

    def translate(self, iovas: U64) -> BatchTranslation:
        """Translate addresses."""
        translated = np.zeros(len(iovas), dtype=np.uint64)
        reasons = np.zeros(len(iovas), dtype=np.uint8)
        for start in range(0, len(iovas), _CHUNK):
            part = slice(start, start + _CHUNK)
            _Chunk(self, iovas[part], translated[part], reasons[part]).walk()
        return BatchTranslation(translated, reasons)


class _Chunk:
    """Addresses on their way down. `_places` says where those still walked stand in the chunk; None: all of them."""

    __slots__ = ("_batch", "_iovas", "_places", "_reasons", "_table", "_translated")

    def __init__(self, batch: BatchWalk, iovas: U64, translated: U64, reasons: npt.NDArray[np.uint8]) -> None:
        self._batch: Final = batch
        self._iovas = iovas
        self._translated: Final = translated
        self._reasons: Final = reasons
        self._table: U64 | np.uint64 = np.uint64(batch.stage.root)
        self._places: npt.NDArray[np.int64] | None = None

    def walk(self) -> None:
        """Walk every address to its leaf or its fault."""
        batch = self._batch
        needed = np.uint64(WRITABLE if batch.write else READABLE)
        missing = FaultReason.WRITE_PERMISSION if batch.write else FaultReason.READ_PERMISSION
        self._refuse(self._iovas, self._iovas >> np.uint64(batch.width) != 0, FaultReason.BEYOND_WIDTH)
        for level in range(batch.stage.levels, 0, -1):
            if len(self._iovas) == 0:
                return
            entries = self._read(level)
            entries = self._refuse(entries, entries & needed == 0, missing)
            entries = self._refuse(entries, self._reserved(entries, level), FaultReason.PAGING_RESERVED)
            entries = self._finish(entries, level)
            self._table = entries & np.uint64(batch.rules.address)

    def _read(self, level: int) -> U64:
        offsets = self._iovas >> np.uint64(9 * level) & np.uint64(0xFF8)
        entries, missing = self._batch.words.gather(offsets + self._table)
        if missing is None:
            return entries
        top = level == self._batch.stage.levels
        return self._refuse(entries, missing, FaultReason.CONTEXT_INVALID if top else FaultReason.PAGING_ENTRY_ACCESS)

    def _reserved(self, entries: U64, level: int) -> npt.NDArray[np.bool_]:
        small, large = self._batch.rules.small[level], self._batch.rules.large[level]
        rules: U64 | np.uint64 = np.uint64(small)
        if small != large:
            rules = np.where(entries & _LARGE, np.uint64(large), np.uint64(small))
        reserved: npt.NDArray[np.bool_] = (entries & rules).astype(np.bool_)
        return reserved

    def _finish(self, entries: U64, level: int) -> U64:
        """Write down where the leaves among the entries lead; return the others, which are tables."""
        if level == 1:
            self._arrive(entries, self._iovas, self._places, level)
            return entries
        large = entries & _LARGE != 0
        if not large.any():
            return entries
        places = np.flatnonzero(large) if self._places is None else self._places[large]
        self._arrive(entries[large], self._iovas[large], places, level)
        return self._keep(entries, ~large)

    def _arrive(self, leaves: U64, iovas: U64, places: npt.NDArray[np.int64] | None, level: int) -> None:
        mask = (1 << 9 * level + 3) - 1
        targets = leaves & np.uint64(self._batch.rules.address & ~mask) | iovas & np.uint64(mask)
        interrupts = (targets >= np.uint64(INTERRUPT_FIRST)) & (targets <= np.uint64(INTERRUPT_LAST))
        where = ... if places is None else places
        self._translated[where] = targets
        if interrupts.any():
            legacy = self._batch.stage.pasid is None
            reason = FaultReason.INTERRUPT_ADDRESS if legacy else FaultReason.SCALABLE_INTERRUPT_ADDRESS
            self._reasons[where] = np.where(interrupts, np.uint8(reason), np.uint8(0))

    def _refuse(self, entries: U64, refused: npt.NDArray[np.bool_], reason: FaultReason) -> U64:
        """Give those refused their fault and walk the others on; return their entries."""
        if not refused.any():
            return entries
        self._reasons[refused if self._places is None else self._places[refused]] = reason
        return self._keep(entries, ~refused)

    def _keep(self, entries: U64, kept: npt.NDArray[np.bool_]) -> U64:
        self._places = np.flatnonzero(kept) if self._places is None else self._places[kept]
        self._iovas = self._iovas[kept]
        if isinstance(self._table, np.ndarray):
            self._table = self._table[kept]
        return entries[kept]
