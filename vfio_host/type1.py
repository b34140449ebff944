"""The type1v2 container of legacy VFIO: one IO page table, and a dirty tracker that says "all of it", always.

The kernel's tracker never looks at hardware page tables. While a device that does not pin its pages is in the
container, every query reports every mapped page dirty, again and again; holes are clean. With mediated devices only,
it reports what was written through the IOMMU's software path (semantics 3.3). Rules and errnos: semantics 3.2, 3.3
and tests/golden/kernel-facts.json. It knows no sockets. A refused call changes nothing.
"""

import errno
from typing import Final

from vfio_host.device_iommu import DeviceIommu
from vfio_host.dirty_bits import all_ones, bitmap_bytes
from vfio_host.errors import CallRefused
from vfio_host.interface.bitmaps import sparse
from vfio_host.interface.calls import Type1Info, Unmapped
from vfio_host.interface.numbers import (
    MAX_DIRTY_BITMAP_BYTES,
    PAGE_SIZE,
    U64_MAX,
    DirtyPagesFlags,
    MapFlags,
    UnmapFlags,
)
from vfio_host.io_page_table import IoPageTable
from vfio_host.iova_ranges import allowed, contains
from vfio_host.memory_file import UserAddresses

IOVA_PAGE_SIZES: Final = 0x4020_1000
MAX_MAPPINGS: Final = 65535
_PERMISSIONS: Final = int(MapFlags.READ | MapFlags.WRITE)  # as numbers: ~ of flags drops unknown bits
_UNMAP_FLAGS: Final = int(UnmapFlags.ALL | UnmapFlags.GET_DIRTY_BITMAP)
MAX_MAPPING_PAGES: Final = (1 << 31) - 1
"""DIRTY_BITMAP_PAGES_MAX: what one mapping may have while dirty pages are tracked."""


class Type1Container:
    """One open /dev/vfio/vfio."""

    def __init__(self, addresses: UserAddresses) -> None:
        self._addresses: Final = addresses
        self._groups: dict[str, DeviceIommu] = {}
        self._table: IoPageTable | None = None
        self._tracking = False

    @property
    def table(self) -> IoPageTable | None:
        """The devices' page table; None until SET_IOMMU."""
        return self._table

    def add_group(self, name: str, iommu: DeviceIommu) -> None:
        """VFIO_GROUP_SET_CONTAINER: EPERM when the container is live and the device's interrupts are not remapped."""
        if self._table is not None:
            _check_interrupts(iommu)
        self._groups[name] = iommu

    def remove_group(self, name: str) -> None:
        """Take a group out; with the last one the mappings go, as the kernel drops the driver."""
        del self._groups[name]
        if not self._groups:
            self._table, self._tracking = None, False

    def set_iommu(self) -> None:
        """VFIO_SET_IOMMU. EINVAL without a group or twice, EPERM without interrupt remapping."""
        if not self._groups or self._table is not None:
            raise CallRefused(errno.EINVAL, "Container has no group, or its IOMMU driver already")
        for iommu in self._groups.values():
            _check_interrupts(iommu)
        self._table = IoPageTable(min(iommu.leaf_size for iommu in self._groups.values()))

    def info(self) -> Type1Info:
        """VFIO_IOMMU_GET_INFO; `dma_avail` is how many more mappings there can be."""
        return Type1Info(
            iova_pgsizes=IOVA_PAGE_SIZES,
            migration_pgsize_bitmap=PAGE_SIZE,
            max_dirty_bitmap_size=MAX_DIRTY_BITMAP_BYTES,
            dma_avail=MAX_MAPPINGS - len(self._live()),
            iova_ranges=self._allowed(),
            unmap_all=True,
        )

    def map(self, flags: MapFlags, vaddr: int, iova: int, size: int) -> None:
        """VFIO_IOMMU_MAP_DMA.

        EINVAL for alignment, no permission, an unknown flag, a wrap or a forbidden range; EEXIST for an overlap,
        ENOSPC past the limit of mappings, EFAULT where the caller has no memory.
        """
        table = self._live()
        if not flags or int(flags) & ~_PERMISSIONS:
            raise CallRefused(errno.EINVAL, f"Flags {flags!r} are no permissions")
        if size <= 0 or (iova | size | vaddr) % PAGE_SIZE or iova + size - 1 > U64_MAX:
            raise CallRefused(errno.EINVAL, f"Mapping of {size} bytes at 0x{iova:x} is not aligned, or wraps")
        if next(table.overlapping(iova, size), None) is not None:
            raise CallRefused(errno.EEXIST, f"IOVA 0x{iova:x} with {size} bytes is mapped already")
        if len(table) >= MAX_MAPPINGS:
            raise CallRefused(errno.ENOSPC, f"Container has its {MAX_MAPPINGS} mappings")
        if not contains(self._allowed(), iova, size):
            raise CallRefused(errno.EINVAL, f"IOVA 0x{iova:x} with {size} bytes is not within the allowed ranges")
        if self._tracking and size // PAGE_SIZE > MAX_MAPPING_PAGES:
            raise CallRefused(errno.EINVAL, f"Mapping of {size} bytes is too large to track")
        memory, offset = self._addresses.find(vaddr, size)
        table.map(iova, size, memory, offset, readable=MapFlags.READ in flags, writable=MapFlags.WRITE in flags)

    def unmap(self, flags: UnmapFlags, iova: int, size: int, *, pgsize: int = 0, bitmap_size: int = 0) -> Unmapped:
        """VFIO_IOMMU_UNMAP_DMA, with the bitmap of what goes when GET_DIRTY_BITMAP; a hole unmaps 0 bytes.

        EINVAL for a range that cuts a mapping, alignment, a wrap, ALL with a range, GET_DIRTY_BITMAP with ALL or
        without tracking, a bitmap that is too small or too large; VADDR is not offered.
        """
        table = self._live()
        if int(flags) & ~_UNMAP_FLAGS:
            raise CallRefused(errno.EINVAL, f"Flags {flags!r} are not known to UNMAP_DMA")
        if UnmapFlags.ALL in flags:
            if UnmapFlags.GET_DIRTY_BITMAP in flags or iova or size:
                raise CallRefused(errno.EINVAL, "Unmap of everything takes no range and gives no bitmap")
            return Unmapped(size=table.unmap(0, U64_MAX + 1))
        self._check_range(iova, size)
        bitmap = None
        if UnmapFlags.GET_DIRTY_BITMAP in flags:
            self._check_bitmap(size, pgsize, bitmap_size)
            self._check_uncut(iova, size)
            bitmap = sparse(self._bitmap(iova, size, clear=False), size // PAGE_SIZE)
        self._check_uncut(iova, size)
        return Unmapped(size=table.unmap(iova, size), bitmap=bitmap)

    def dirty_pages(
        self, flags: DirtyPagesFlags, iova: int = 0, size: int = 0, *, pgsize: int = 0, bitmap_size: int = 0
    ) -> bytes | None:
        """VFIO_IOMMU_DIRTY_PAGES: a bitmap for GET_BITMAP, else None.

        EINVAL unless exactly one flag is set; for START with a mapping of too many pages; for GET_BITMAP without
        tracking, with another page size, alignment, a range that cuts a mapping, or a bitmap of the wrong size.
        """
        table = self._live()
        if flags == DirtyPagesFlags.START:
            if any(m.length // PAGE_SIZE > MAX_MAPPING_PAGES for m in table.overlapping(0, U64_MAX + 1)):
                raise CallRefused(errno.EINVAL, "A mapping has too many pages to track")
            self._tracking = True
            table.set_tracking(enable=True)
        elif flags == DirtyPagesFlags.STOP:
            self._tracking = False
            table.set_tracking(enable=False)
        elif flags == DirtyPagesFlags.GET_BITMAP:
            self._check_bitmap(size, pgsize, bitmap_size)
            self._check_range(iova, size)
            self._check_uncut(iova, size)
            return self._bitmap(iova, size, clear=True)
        else:
            raise CallRefused(errno.EINVAL, f"Flags {flags!r} are not exactly one operation")
        return None

    def _live(self) -> IoPageTable:
        if self._table is None:
            raise CallRefused(errno.EINVAL, "Container has no IOMMU driver yet")
        return self._table

    def _allowed(self) -> tuple[tuple[int, int], ...]:
        width = min(iommu.address_width for iommu in self._groups.values())
        return allowed((1 << width) - 1, interrupt_window=True)

    def _check_range(self, iova: int, size: int) -> None:
        if size <= 0 or (iova | size) % PAGE_SIZE or iova + size - 1 > U64_MAX:
            raise CallRefused(errno.EINVAL, f"Range of {size} bytes at 0x{iova:x} is not aligned, or wraps")

    def _check_bitmap(self, size: int, pgsize: int, bitmap_size: int) -> None:
        if not self._tracking:
            raise CallRefused(errno.EINVAL, "Dirty pages are not tracked")
        if pgsize != PAGE_SIZE:
            raise CallRefused(errno.EINVAL, f"Dirty pages are tracked by {PAGE_SIZE} bytes, not by {pgsize}")
        if not bitmap_bytes(size // PAGE_SIZE) <= bitmap_size <= MAX_DIRTY_BITMAP_BYTES or size < PAGE_SIZE:
            raise CallRefused(errno.EINVAL, f"Bitmap of {bitmap_size} bytes does not do for {size} bytes")

    def _check_uncut(self, iova: int, size: int) -> None:
        for mapping in self._live().overlapping(iova, size):
            if mapping.iova < iova or mapping.end > iova + size:
                raise CallRefused(errno.EINVAL, f"Range at 0x{iova:x} cuts the mapping at 0x{mapping.iova:x}")

    def _bitmap(self, iova: int, size: int, *, clear: bool) -> bytes:
        table = self._live()
        if all(iommu.mediated for iommu in self._groups.values()):
            return table.read_dirty(iova, size, clear=clear)
        bitmap = bytearray(bitmap_bytes(size // PAGE_SIZE))
        for mapping in table.overlapping(iova, size):
            all_ones(bitmap, (mapping.iova - iova) // PAGE_SIZE, mapping.length // PAGE_SIZE)
        return bytes(bitmap)


def _check_interrupts(iommu: DeviceIommu) -> None:
    if not iommu.interrupt_remapping and not iommu.mediated:
        raise CallRefused(errno.EPERM, "IOMMU does not remap interrupts, so a device could forge them")
