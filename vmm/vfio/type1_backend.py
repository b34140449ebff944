"""A type1 container: mapped by user address; its tracker reports everything that is mapped, always.

It holds the groups of all devices that share an address space.
"""

import errno
from typing import Final

from vfio_host.interface.calls import (
    Answer,
    AnyCall,
    Bitmap,
    DirtyPages,
    Failed,
    GetInfo,
    GroupSetContainer,
    MapDma,
    SetIommu,
    Type1Info,
    UnmapDma,
    Unmapped,
)
from vfio_host.interface.numbers import DEV_VFIO, DirtyPagesFlags, UnmapFlags
from vmm.vfio.backend import READ_ONLY, READ_WRITE, BitmapTooLarge, bitmap_bytes
from vmm.vfio.host_port import Descriptor, HostCallFailed, HostPort


class Type1Backend:
    """Implements `vmm.vfio.backend.Backend` (semantics 3.2, 3.3, 3.5)."""

    perpetual: Final = True

    def __init__(self, host: HostPort, group: Descriptor, ram_address: int, *, offers_tracker: bool = True) -> None:
        """Make a container of a first group.

        `offers_tracker` is false where the hypervisor takes no notice of the kernel's (seeds/001).

        Raises:
            HostCallFailed: The group is in no container.
        """
        opened = host.open(DEV_VFIO)
        self.descriptor: Final = opened.descriptor
        self.id: Final = opened.id
        self._ram_address: Final = ram_address
        self.join(group)
        self.descriptor.call(SetIommu())
        info = self.descriptor.call(GetInfo())
        if not isinstance(info, Type1Info) or not info.iova_pgsizes:
            raise HostCallFailed(GetInfo(), errno.EPROTO)
        self._unmaps_all: Final = info.unmap_all
        self.page_size: Final = info.iova_pgsizes & -info.iova_pgsizes
        self.max_bitmap_bytes: Final = info.max_dirty_bitmap_size
        self._tracks: Final = offers_tracker and bool(info.migration_pgsize_bitmap & self.page_size)

    @property
    def tracks(self) -> bool:
        """Whether the kernel offers a tracker for pages of its size, and the hypervisor takes it."""
        return self._tracks

    def join(self, group: Descriptor) -> None:
        """VFIO_GROUP_SET_CONTAINER: put another group into the container.

        Raises:
            HostCallFailed: The kernel keeps the group apart; it needs a container of its own.
        """
        group.call(GroupSetContainer(container=self.id))

    def map_call(self, iova: int, offset: int, size: int, *, writable: bool) -> AnyCall:
        """VFIO_IOMMU_MAP_DMA."""
        flags = READ_WRITE if writable else READ_ONLY
        return MapDma(flags=flags, vaddr=self._ram_address + offset, iova=iova, size=size)

    def unmap_call(self, iova: int, size: int) -> AnyCall:
        """VFIO_IOMMU_UNMAP_DMA."""
        return UnmapDma(flags=UnmapFlags.NONE, iova=iova, size=size)

    def unmap_all_calls(self) -> tuple[AnyCall, ...]:
        """Unmap everything: by flag where the kernel has it, else in two halves (semantics 3.3)."""
        if self._unmaps_all:
            return (UnmapDma(flags=UnmapFlags.ALL, iova=0, size=0),)
        return self.unmap_call(0, 1 << 63), self.unmap_call(1 << 63, 1 << 63)

    def query_calls(self, iova: int, size: int, *, clear: bool) -> tuple[AnyCall, ...]:
        """VFIO_IOMMU_DIRTY_PAGES with GET_BITMAP; type1 clears nothing, whatever is asked."""
        del clear
        needed = bitmap_bytes(size, self.page_size)
        flags = DirtyPagesFlags.GET_BITMAP
        return (DirtyPages(flags=flags, iova=iova, size=size, pgsize=self.page_size, bitmap_size=needed),)

    def unmap_with_bits_call(self, iova: int, size: int) -> AnyCall:
        """Both in one call, which is atomic.

        Raises:
            BitmapTooLarge: Nothing was asked of the kernel.
        """
        needed = bitmap_bytes(size, self.page_size)
        if needed > self.max_bitmap_bytes:
            raise BitmapTooLarge(f"UNMAP: Size of bitmap too big 0x{needed:x}")
        flags = UnmapFlags.GET_DIRTY_BITMAP
        return UnmapDma(flags=flags, iova=iova, size=size, pgsize=self.page_size, bitmap_size=needed)

    def bits_of(self, answer: Answer) -> Bitmap | None:
        """Return a query's bitmap."""
        if isinstance(answer, Unmapped):
            return answer.bitmap
        return answer if isinstance(answer, Bitmap) else None

    def nothing_to_unmap(self, failure: Failed) -> bool:
        """A hole is unmapped with success here, so no failure says that."""
        del failure
        return False

    def set_tracking(self, *, on: bool) -> None:
        """VFIO_IOMMU_DIRTY_PAGES with START or STOP."""
        flags = DirtyPagesFlags.START if on else DirtyPagesFlags.STOP
        self.descriptor.call(DirtyPages(flags=flags))

    def batch_descriptors(self) -> tuple[int, ...]:
        """Mappings are by address: nothing needs to come along."""
        return ()
