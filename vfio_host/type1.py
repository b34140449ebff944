"""The type1v2 container of legacy VFIO: one IO page table, and a dirty tracker that says "all of it", always.

The kernel's tracker never looks at hardware page tables. While a group whose devices do not pin their pages is in the
container, every query reports every mapped page dirty, again and again; holes are clean. With mediated devices only,
it reports what was written through the kernel's own path; this host's mediated devices write in that way and pin
nothing (semantics 3.3). When the last group that does not pin leaves, everything is dirty once more, because nobody
knows what it wrote (vfio_iommu_populate_bitmap_full).

Rules and errnos: semantics 3.2, 3.3 and tests/golden/kernel-facts.json. It knows no sockets. A refused call changes
nothing.

A machine process that hands over to another abandons the user addresses of its mappings, and the other registers its
own: mappings, pages and dirty bits stay, and DMA goes on while there is no address (semantics 9.4, vfio_dma_do_unmap
and vfio_dma_do_map with VADDR). A mediated device needs an address at every access, so it forbids that.
"""

import errno
from collections.abc import Collection
from typing import Final

from vfio_host.device_iommu import DeviceIommu
from vfio_host.errors import CallRefused
from vfio_host.interface.answers import Bitmap, Type1Info, Unmapped
from vfio_host.interface.bitmaps import BitmapBuilder, bitmap_bytes, encoded_room
from vfio_host.interface.numbers import (
    LEAF_SIZES,
    MAX_DIRTY_BITMAP_BYTES,
    PAGE_SIZE,
    U64_MAX,
    DirtyPagesFlags,
    Extension,
    MapFlags,
    UnmapFlags,
)
from vfio_host.io_page_table import IoPageTable
from vfio_host.iova_ranges import allowed, contains
from vfio_host.locked_memory import MayLock, require_room, unlimited
from vfio_host.memory_file import UserAddresses

MAX_MAPPINGS: Final = 65535
_PERMISSIONS: Final = int(MapFlags.READ | MapFlags.WRITE)  # as numbers: ~ of flags drops unknown bits
_UNMAP_FLAGS: Final = int(UnmapFlags.ALL | UnmapFlags.GET_DIRTY_BITMAP)
_WHOLE: Final = U64_MAX + 1
MAX_MAPPING_PAGES: Final = (1 << 31) - 1
"""DIRTY_BITMAP_PAGES_MAX: what one mapping may have while dirty pages are tracked."""


class Type1Container:
    """One open /dev/vfio/vfio, on a host with pages of `page_size` bytes.

    `updates_vaddr` is false for a kernel without VFIO_UPDATE_VADDR; `may_lock` says what processes may have locked.
    """

    def __init__(
        self,
        addresses: UserAddresses,
        page_size: int = PAGE_SIZE,
        *,
        updates_vaddr: bool = True,
        may_lock: MayLock = unlimited,
    ) -> None:
        self._addresses: Final = addresses
        self._may_lock: Final = may_lock
        self._page_size: Final = page_size
        self._groups: dict[str, DeviceIommu] = {}
        self._table: IoPageTable | None = None
        self._tracking = False
        self._updates_vaddr: Final = updates_vaddr
        self._without_address = 0

    @property
    def table(self) -> IoPageTable | None:
        """The devices' page table; None until SET_IOMMU."""
        return self._table

    def add_group(self, name: str, iommu: DeviceIommu) -> None:
        """VFIO_GROUP_SET_CONTAINER.

        Into a live container: EBUSY while a mapping has no user address, EPERM when the device's interrupts are not
        remapped, EINVAL when a mapping lies where its IOMMU does not reach.
        """
        if self._without_address:
            raise CallRefused(errno.EBUSY, f"Group {name} could need pages of mappings without a user address")
        if self._table is not None:
            _check_interrupts(iommu)
            ranges = _allowed([*self._groups.values(), iommu])
            if not all(contains(ranges, m.iova, m.length) for m in self._table.overlapping(0, _WHOLE)):
                raise CallRefused(errno.EINVAL, f"Group {name} cannot reach what is mapped already")
        self._groups[name] = iommu

    def remove_group(self, name: str) -> None:
        """Take a group out; with the last one the mappings go, as the kernel drops the driver."""
        had_hardware = self._hardware
        del self._groups[name]
        if not self._groups:
            self._table, self._tracking, self._without_address = None, False, 0
        elif self._table is not None and self._tracking and had_hardware and not self._hardware:
            self._table.mark_all()

    def set_iommu(self) -> None:
        """VFIO_SET_IOMMU. EINVAL without a group or twice, EPERM without interrupt remapping."""
        if not self._groups or self._table is not None:
            raise CallRefused(errno.EINVAL, "Container has no group, or its IOMMU driver already")
        for iommu in self._groups.values():
            _check_interrupts(iommu)
        # What the kernel logs itself, for mediated devices, it logs by pages.
        self._table = IoPageTable(page_size=self._page_size, leaf_size=self._page_size)

    def info(self) -> Type1Info:
        """VFIO_IOMMU_GET_INFO; `dma_avail` is how many more mappings there can be.

        With mediated devices only, every power of two from the page size on can be mapped, and every IOVA: the kernel
        then leaves the list of ranges out.
        """
        page_sizes = sum(LEAF_SIZES[self._page_size]) if self._hardware else (U64_MAX + 1) - self._page_size
        return Type1Info(
            iova_pgsizes=page_sizes,
            migration_pgsize_bitmap=self._page_size,
            max_dirty_bitmap_size=MAX_DIRTY_BITMAP_BYTES,
            dma_avail=MAX_MAPPINGS - len(self._live()),
            iova_ranges=_allowed(self._groups.values()),
            unmap_all=True,
        )

    def extension(self, extension: Extension) -> bool:
        """VFIO_CHECK_EXTENSION. User addresses cannot be updated before SET_IOMMU, nor with a mediated device."""
        if extension is Extension.UPDATE_VADDR:
            return self._updates_vaddr and self._table is not None and not self._mediated
        return True

    def locked_bytes(self, process: int) -> int:
        """Return what of a process's locked memory its mappings here are; mediated devices alone lock none."""
        if self._table is None or not self._hardware:
            return 0
        return sum(mapping.length for mapping in self._table.overlapping(0, _WHOLE) if mapping.owner == process)

    def map(self, flags: MapFlags, vaddr: int, iova: int, size: int, process: int = 0) -> None:
        """VFIO_IOMMU_MAP_DMA by a process.

        With VADDR alone it registers a new user address for a mapping that has none, and counts its pages as locked by
        the process from here on: ENOENT where nothing is mapped, EINVAL for a mapping that has an address or is another
        than this range. It does not ask what lies there, as the kernel pins nothing anew. Else:

        EINVAL for alignment, no permission, an unknown flag, a wrap or a forbidden range, and for more pages than can
        be tracked while they are; EEXIST for an overlap, ENOSPC past the limit of mappings, EFAULT where the caller
        has no memory; ENOMEM, in both cases, for more than it may have locked.
        """
        table = self._live()
        registers = flags == MapFlags.VADDR and self._updates_vaddr
        if not registers and (not flags or int(flags) & ~_PERMISSIONS):
            raise CallRefused(errno.EINVAL, f"Flags {flags!r} are no permissions")
        self._check_range(iova, size)
        if vaddr < 0 or vaddr % self._page_size or vaddr + size - 1 > U64_MAX:
            raise CallRefused(errno.EINVAL, f"Mapping of {size} bytes at address 0x{vaddr:x} is not aligned, or wraps")
        if registers:
            self._register_address(table, iova, size, process)
            return
        if table.occupied(iova, size):
            raise CallRefused(errno.EEXIST, f"IOVA 0x{iova:x} with {size} bytes is mapped already")
        if len(table) >= MAX_MAPPINGS:
            raise CallRefused(errno.ENOSPC, f"Container has its {MAX_MAPPINGS} mappings")
        if not contains(_allowed(self._groups.values()), iova, size):
            raise CallRefused(errno.EINVAL, f"IOVA 0x{iova:x} with {size} bytes is not within the allowed ranges")
        memory, offset = self._addresses.find(vaddr, size, process)
        if self._tracking and size // self._page_size > MAX_MAPPING_PAGES:
            raise CallRefused(errno.EINVAL, f"Mapping of {size} bytes is too large to track")
        if self._hardware:
            require_room(self._may_lock, process, size)
        readable, writable = MapFlags.READ in flags, MapFlags.WRITE in flags
        table.map(iova, size, memory, offset, readable=readable, writable=writable, owner=process)

    def unmap(
        self,
        flags: UnmapFlags,
        iova: int,
        size: int,
        *,
        pgsize: int = 0,
        bitmap_size: int = 0,
        limit: int | None = None,
    ) -> Unmapped:
        """VFIO_IOMMU_UNMAP_DMA, with the bitmap of what goes when GET_DIRTY_BITMAP; a hole unmaps 0 bytes.

        EINVAL for a range that cuts a mapping, alignment, a wrap, ALL with a range, GET_DIRTY_BITMAP with ALL or VADDR
        or without tracking, a bitmap that is too small or too large. ENOMEM when the bitmap takes more than `limit`
        bytes of an answer.
        With VADDR nothing is unmapped: the mappings lose their user addresses and no more. EBUSY with a mediated
        device, EINVAL when one of them has none already.
        """
        table = self._live()
        abandons = UnmapFlags.VADDR in flags
        if int(flags) & ~(_UNMAP_FLAGS | (int(UnmapFlags.VADDR) if self._updates_vaddr else 0)):
            raise CallRefused(errno.EINVAL, f"Flags {flags!r} are not known to UNMAP_DMA")
        if UnmapFlags.GET_DIRTY_BITMAP in flags and flags != UnmapFlags.GET_DIRTY_BITMAP:
            raise CallRefused(errno.EINVAL, f"Flags {flags!r} exclude each other")
        if abandons and self._mediated:
            raise CallRefused(errno.EBUSY, "A mediated device needs user addresses at every access")
        if UnmapFlags.ALL in flags:
            if iova or size:
                raise CallRefused(errno.EINVAL, "Unmap of everything takes no range")
            return self._abandon(table, 0, _WHOLE) if abandons else self._unmap(table, 0, _WHOLE)
        self._check_range(iova, size)
        if abandons:
            self._check_uncut(iova, size)
            return self._abandon(table, iova, size)
        wanted = UnmapFlags.GET_DIRTY_BITMAP in flags
        if wanted:
            self._check_bitmap(size, pgsize, bitmap_size)
        self._check_uncut(iova, size)
        bitmap = self._bitmap(iova, size, limit) if wanted else None
        return self._unmap(table, iova, size, bitmap)

    def dirty_pages(
        self,
        flags: DirtyPagesFlags,
        iova: int = 0,
        size: int = 0,
        *,
        pgsize: int = 0,
        bitmap_size: int = 0,
        limit: int | None = None,
    ) -> Bitmap | None:
        """VFIO_IOMMU_DIRTY_PAGES: a bitmap for GET_BITMAP, else None.

        EINVAL unless exactly one flag is set; for START with a mapping of too many pages; for GET_BITMAP without
        tracking, with another page size, alignment, a range that cuts a mapping or ends with the address space, or a
        bitmap of the wrong size. ENOMEM when the bitmap takes more than `limit` bytes of an answer.
        """
        table = self._live()
        if flags == DirtyPagesFlags.START:
            self._start(table)
        elif flags == DirtyPagesFlags.STOP:
            self._tracking = False
            table.set_tracking(enable=False)
        elif flags == DirtyPagesFlags.GET_BITMAP:
            self._check_bitmap(size, pgsize, bitmap_size)
            self._check_range(iova, size)
            if iova + size > U64_MAX:
                raise CallRefused(errno.EINVAL, f"Range of {size} bytes at 0x{iova:x} ends with the address space")
            self._check_uncut(iova, size)
            bitmap = self._bitmap(iova, size, limit)
            table.clear_dirty(iova, size)
            return bitmap
        else:
            raise CallRefused(errno.EINVAL, f"Flags {flags!r} are not exactly one operation")
        return None

    @property
    def _hardware(self) -> bool:
        """Whether a device is here that reaches memory through an IOMMU, which does not say what it writes."""
        return any(not iommu.mediated for iommu in self._groups.values())

    @property
    def _mediated(self) -> bool:
        return any(iommu.mediated for iommu in self._groups.values())

    def _unmap(self, table: IoPageTable, iova: int, size: int, bitmap: Bitmap | None = None) -> Unmapped:
        if self._without_address:
            self._without_address -= sum(not mapping.has_address for mapping in table.overlapping(iova, size))
        return Unmapped(size=table.unmap(iova, size), bitmap=bitmap)

    def _abandon(self, table: IoPageTable, iova: int, size: int) -> Unmapped:
        found = list(table.overlapping(iova, size))
        if not all(mapping.has_address for mapping in found):
            raise CallRefused(errno.EINVAL, "A mapping has no user address already")
        for mapping in found:
            mapping.has_address = False
        self._without_address += len(found)
        return Unmapped(size=sum(mapping.length for mapping in found))

    def _register_address(self, table: IoPageTable, iova: int, size: int, process: int) -> None:
        mapping = next(table.overlapping(iova, size), None)
        if mapping is None:
            raise CallRefused(errno.ENOENT, f"Nothing is mapped at 0x{iova:x}, {size} bytes")
        if mapping.has_address or (mapping.iova, mapping.length) != (iova, size):
            raise CallRefused(errno.EINVAL, f"Mapping at 0x{mapping.iova:x} has an address, or is not of {size} bytes")
        if mapping.owner != process:  # it cannot be mediated devices alone: those forbid it
            require_room(self._may_lock, process, size)
        mapping.has_address, mapping.owner = True, process
        self._without_address -= 1

    def _live(self) -> IoPageTable:
        if self._table is None:
            raise CallRefused(errno.EINVAL, "Container has no IOMMU driver yet")
        return self._table

    def _start(self, table: IoPageTable) -> None:
        if self._tracking:
            return
        if any(m.length // self._page_size > MAX_MAPPING_PAGES for m in table.overlapping(0, _WHOLE)):
            raise CallRefused(errno.EINVAL, "A mapping has too many pages to track")
        self._tracking = True
        table.set_tracking(enable=True)

    def _check_range(self, iova: int, size: int) -> None:
        if size <= 0 or iova < 0 or (iova | size) % self._page_size or iova + size - 1 > U64_MAX:
            raise CallRefused(errno.EINVAL, f"Range of {size} bytes at 0x{iova:x} is not aligned, or wraps")

    def _check_bitmap(self, size: int, pgsize: int, bitmap_size: int) -> None:
        if not self._tracking:
            raise CallRefused(errno.EINVAL, "Dirty pages are not tracked")
        if pgsize != self._page_size:
            raise CallRefused(errno.EINVAL, f"Dirty pages are tracked by {self._page_size} bytes, not by {pgsize}")
        pages = size // pgsize
        if pages < 1 or not bitmap_bytes(pages) <= bitmap_size <= MAX_DIRTY_BITMAP_BYTES:
            raise CallRefused(errno.EINVAL, f"Bitmap of {bitmap_size} bytes does not do for {size} bytes")

    def _check_uncut(self, iova: int, size: int) -> None:
        cut = self._live().cut_by(iova, size)
        if cut is not None:
            raise CallRefused(errno.EINVAL, f"Range at 0x{iova:x} cuts the mapping at 0x{cut.iova:x}")

    def _bitmap(self, iova: int, size: int, limit: int | None) -> Bitmap:
        table, page = self._live(), self._page_size
        if self._hardware:
            builder = BitmapBuilder(size // page)
            for mapping in table.overlapping(iova, size):
                builder.add_run((mapping.iova - iova) // page, mapping.length // page)
            bitmap = builder.built()
        else:
            bitmap = table.read_dirty(iova, size, page)
        if limit is not None and encoded_room(bitmap) > limit:
            raise CallRefused(errno.ENOMEM, f"Bitmap of {size} bytes at 0x{iova:x} does not fit its answer")
        return bitmap


def _allowed(iommus: Collection[DeviceIommu]) -> tuple[tuple[int, int], ...]:
    """Return what every device can reach; mediated ones set no limits."""
    widths = [iommu.address_width for iommu in iommus if not iommu.mediated]
    return allowed((1 << min(widths, default=64)) - 1, interrupt_window=bool(widths))


def _check_interrupts(iommu: DeviceIommu) -> None:
    if not iommu.interrupt_remapping and not iommu.mediated:
        raise CallRefused(errno.EPERM, "IOMMU does not remap interrupts, so a device could forge them")
