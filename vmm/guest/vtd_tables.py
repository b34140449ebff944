"""The table pages that the VT-d driver writes into RAM: a pool of pages, and second-stage tables made of them.

Tables that become empty are unlinked at once, and returned to the pool by the driver after the unit has forgotten
them: a table must not be used anew while it may still be walked.
"""

from typing import Final

import msgspec
import numpy as np

from vmm.guest.dma import MapFailed
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SHIFT, PAGE_SIZE

LARGE_PAGE: Final = 1 << 21
_READ_WRITE: Final = 3
_LARGE: Final = 1 << 7
_ADDRESS: Final = (1 << 52) - 1 & ~0xFFF


class PoolState(msgspec.Struct, frozen=True, array_like=True):
    """What moves: the first page never used, and the freed pages, latest last."""

    unused: int
    free: tuple[int, ...]


class TablePool:
    """Pages of guest RAM for tables."""

    def __init__(self, memory: GuestMemory, base: int, size: int) -> None:
        self._memory: Final = memory
        self._base: Final = base
        self._end: Final = base + size
        self._unused = base
        self._free: list[int] = []

    @property
    def available(self) -> int:
        """How many pages are left."""
        return len(self._free) + (self._end - self._unused) // PAGE_SIZE

    def allocate(self) -> int:
        """Return the address of a page of zeros.

        Raises:
            MapFailed: No page is left.
        """
        if self._free:
            page = self._free.pop()
        elif self._unused < self._end:
            page = self._unused
            self._unused += PAGE_SIZE
        else:
            raise MapFailed(f"All {(self._end - self._base) // PAGE_SIZE} pages for tables are in use")
        self._memory.words(page, PAGE_SIZE // 8)[:] = 0
        self._memory.mark(page, PAGE_SIZE)
        return page

    def allocate_pages(self, count: int) -> list[int]:
        """Return so many pages of zeros, or none.

        Raises:
            MapFailed: There are not so many.
        """
        if self.available < count:
            raise MapFailed(f"Only {self.available} pages for tables are left, {count} are needed")
        return [self.allocate() for _ in range(count)]

    def release(self, pages: list[int]) -> None:
        """Take pages back."""
        self._free.extend(pages)

    def save(self) -> PoolState:
        """Return the state that moves."""
        return PoolState(self._unused, tuple(self._free))

    def load(self, state: PoolState) -> None:
        """Continue from a state."""
        self._unused, self._free = state.unused, list(state.free)

    def could_be_at(self, state: PoolState) -> bool:
        """Whether a state lies within this pool."""
        inside = state.unused == self._end or self.owns(state.unused)
        return inside and all(self.owns(page) and page < state.unused for page in state.free)

    def owns(self, page: int) -> bool:
        """Whether an address is one of the pool's pages."""
        return self._base <= page < self._end and page % PAGE_SIZE == 0


class SecondStageTables:
    """One domain's tables, from the root down."""

    def __init__(self, memory: GuestMemory, pool: TablePool, root: int, levels: int) -> None:
        self.root: Final = root
        self._memory: Final = memory
        self._pool: Final = pool
        self._levels: Final = levels

    def map(self, iova: int, address: int, length: int) -> None:
        """Write leaves for a range that is not mapped: of 2 MiB wherever both sides are aligned, else of 4 KiB.

        Raises:
            MapFailed: No page is left for a table. What was written is for `unmap` to take away.
        """
        end = iova + length
        while iova < end:
            if (iova | address) % LARGE_PAGE == 0 and end - iova >= LARGE_PAGE:
                self._memory.write_u64(self._entry(iova, 2), address | _READ_WRITE | _LARGE)
                size = LARGE_PAGE
            else:
                size = min(end, (iova | LARGE_PAGE - 1) + 1) - iova
                first, count = self._entry(iova, 1), size >> PAGE_SHIFT
                leaves = np.arange(count, dtype=np.uint64) * PAGE_SIZE + np.uint64(address | _READ_WRITE)
                self._memory.words(first, count)[:] = leaves
                self._memory.mark(first, count * 8)
            iova, address = iova + size, address + size

    def unmap(self, iova: int, length: int, emptied: list[int]) -> bool:
        """Clear every leaf of a range, and unlink tables that became empty, adding them to `emptied`.

        Returns:
            Whether all of the range was mapped.
        """
        end, whole = iova + length, True
        while iova < end:
            size = min(end, (iova | LARGE_PAGE - 1) + 1) - iova
            whole &= self._clear(iova, size, emptied)
            iova += size
        return whole

    def pages(self) -> list[int]:
        """Return every page of the tables, root included, those of damaged entries left out."""
        found, tables = [self.root], [self.root]
        for _ in range(self._levels - 1):
            entries = (entry for table in tables for entry in self._memory.words(table, PAGE_SIZE // 8).tolist())
            below = dict.fromkeys(entry & _ADDRESS for entry in entries if entry & _READ_WRITE and not entry & _LARGE)
            tables = [page for page in below if self._pool.owns(page) and page not in found]
            found += tables
        return found

    def _entry(self, iova: int, level: int) -> int:
        """Return where the entry of an address at a level lies, with the tables above it made."""
        table = self.root
        for above in range(self._levels, level, -1):
            place = table + _index(iova, above) * 8
            entry = self._memory.read_u64(place)
            if not entry & _READ_WRITE:
                entry = self._pool.allocate() | _READ_WRITE
                self._memory.write_u64(place, entry)
            table = entry & _ADDRESS
        return table + _index(iova, level) * 8

    def _clear(self, iova: int, size: int, emptied: list[int]) -> bool:
        path = [self.root]
        for level in range(self._levels, 1, -1):
            entry = self._memory.read_u64(path[-1] + _index(iova, level) * 8)
            if not entry & _READ_WRITE or entry & _LARGE:
                break
            path.append(entry & _ADDRESS)
        level = self._levels - len(path) + 1
        first, count = path[-1] + _index(iova, level) * 8, size >> PAGE_SHIFT if level == 1 else 1
        leaves = self._memory.words(first, count)
        whole = bool(leaves.all())
        leaves[:] = 0
        self._memory.mark(first, count * 8)
        while len(path) > 1 and not self._memory.words(path[-1], PAGE_SIZE // 8).any():
            emptied.append(path.pop())
            level += 1
            self._memory.write_u64(path[-1] + _index(iova, level) * 8, 0)
        return whole


def _index(iova: int, level: int) -> int:
    return iova >> PAGE_SHIFT + 9 * (level - 1) & 511
