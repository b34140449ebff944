"""A type1 container: mapped by user address; its tracker reports everything that is mapped, always."""

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
from vfio_host.interface.numbers import (
    DEV_VFIO,
    MAX_DIRTY_BITMAP_BYTES,
    PAGE_SIZE,
    DirtyPagesFlags,
    MapFlags,
    UnmapFlags,
)
from vmm.vfio.container import BitmapTooLarge, Run
from vmm.vfio.host_port import Descriptor, HostCallFailed, HostPort


class Type1Backend:
    """Implements `vmm.vfio.container.Backend` (semantics 3.2, 3.3, 3.5)."""

    tracks: Final = True

    def __init__(self, host: HostPort, group: Descriptor, ram_address: int) -> None:
        opened = host.open(DEV_VFIO)
        self.descriptor = opened.descriptor
        self._ram_address = ram_address
        group.call(GroupSetContainer(container=opened.id))
        self.descriptor.call(SetIommu())
        answer = self.descriptor.call(GetInfo())
        if not isinstance(answer, Type1Info):
            raise HostCallFailed(GetInfo(), errno.EPROTO)
        self.info: Final = answer

    def map_call(self, iova: int, run: Run, *, writable: bool) -> AnyCall:
        """VFIO_IOMMU_MAP_DMA."""
        flags = MapFlags.READ | MapFlags.WRITE if writable else MapFlags.READ
        return MapDma(flags=flags, vaddr=self._ram_address + run.offset, iova=iova, size=run.size)

    def unmap_call(self, iova: int, size: int) -> AnyCall:
        """VFIO_IOMMU_UNMAP_DMA."""
        return UnmapDma(flags=UnmapFlags.NONE, iova=iova, size=size)

    def unmap_all_calls(self) -> tuple[AnyCall, ...]:
        """Unmap everything: by flag where the kernel has it, else in two halves (semantics 3.3)."""
        if self.info.unmap_all:
            return (UnmapDma(flags=UnmapFlags.ALL, iova=0, size=0),)
        return self.unmap_call(0, 1 << 63), self.unmap_call(1 << 63, 1 << 63)

    def query_call(self, iova: int, size: int, *, clear: bool) -> AnyCall:
        """VFIO_IOMMU_DIRTY_PAGES with GET_BITMAP; type1 clears nothing, whatever is asked."""
        del clear
        return DirtyPages(
            flags=DirtyPagesFlags.GET_BITMAP, iova=iova, size=size, pgsize=PAGE_SIZE, bitmap_size=_bitmap_bytes(size)
        )

    def unmap_and_query(self, iova: int, size: int) -> tuple[tuple[AnyCall, bool], ...]:
        """Both in one call, which is atomic.

        Raises:
            BitmapTooLarge: Nothing was asked of the kernel.
        """
        needed = _bitmap_bytes(size)
        if needed > MAX_DIRTY_BITMAP_BYTES:
            raise BitmapTooLarge(f"Unmap of {size} bytes at 0x{iova:x} needs a bitmap of {needed} bytes (E2BIG)")
        flags = UnmapFlags.GET_DIRTY_BITMAP
        return ((UnmapDma(flags=flags, iova=iova, size=size, pgsize=PAGE_SIZE, bitmap_size=needed), True),)

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


def _bitmap_bytes(size: int) -> int:
    pages = -(-size // PAGE_SIZE)
    return -(-pages // 64) * 8
