"""A container on iommufd: an IO address space, mapped by file, with a hardware page table where the device has one."""

import errno
from typing import Final

from vfio_host.interface.calls import (
    Answer,
    AnyCall,
    AttachPt,
    BindIommufd,
    Bitmap,
    Failed,
    GetHwInfo,
    HwptAlloc,
    HwptGetDirtyBitmap,
    HwptSetDirtyTracking,
    IoasAlloc,
    IoasMapFile,
    IoasUnmap,
    Number,
)
from vfio_host.interface.numbers import DEV_IOMMU, PAGE_SIZE, U64_MAX, GetDirtyFlags, HwptFlags, MapFlags
from vmm.vfio.container import Run
from vmm.vfio.host_port import Descriptor, HostCallFailed, HostPort

_DIRTY_TRACKING: Final = 1


class IommufdBackend:
    """Implements `vmm.vfio.container.Backend` (semantics 1.4, 3.4, 3.5)."""

    def __init__(self, host: HostPort, device: Descriptor, ram: int, *, want_tracking: bool, mediated: bool) -> None:
        opened = host.open(DEV_IOMMU)
        self.descriptor = opened.descriptor
        self.tracks = False
        self._ram = ram
        self._ioas = _number(self.descriptor.call(IoasAlloc()))
        self._hwpt: int | None = None
        device_id = _number(device.call(BindIommufd(iommufd=opened.id)))
        if mediated:
            # A mediated device has no hardware page table of its own (semantics 1.4).
            device.call(AttachPt(pt_id=self._ioas))
            return
        capable = bool(_number(self.descriptor.call(GetHwInfo(dev_id=device_id))) & _DIRTY_TRACKING)
        flags = HwptFlags.DIRTY_TRACKING if capable and want_tracking else HwptFlags.NONE
        hwpt = _number(self.descriptor.call(HwptAlloc(flags=flags, dev_id=device_id, pt_id=self._ioas)))
        device.call(AttachPt(pt_id=hwpt))
        self._hwpt = hwpt
        self.tracks = flags is HwptFlags.DIRTY_TRACKING

    def map_call(self, iova: int, run: Run, *, writable: bool) -> AnyCall:
        """Map by file: no user address is involved, so that another process can take the mappings over."""
        flags = MapFlags.READ | MapFlags.WRITE if writable else MapFlags.READ
        return IoasMapFile(ioas_id=self._ioas, flags=flags, file=0, start=run.offset, length=run.size, iova=iova)

    def unmap_call(self, iova: int, size: int) -> AnyCall:
        """IOMMU_IOAS_UNMAP."""
        return IoasUnmap(ioas_id=self._ioas, iova=iova, length=size)

    def unmap_all_calls(self) -> tuple[AnyCall, ...]:
        """IOMMU_IOAS_UNMAP of everything."""
        return (self.unmap_call(0, U64_MAX),)

    def query_call(self, iova: int, size: int, *, clear: bool) -> AnyCall:
        """IOMMU_HWPT_GET_DIRTY_BITMAP."""
        if self._hwpt is None:
            raise AssertionError("A container without a hardware page table has no dirty bits to query")
        flags = GetDirtyFlags.NONE if clear else GetDirtyFlags.NO_CLEAR
        return HwptGetDirtyBitmap(hwpt_id=self._hwpt, flags=flags, iova=iova, length=size, page_size=PAGE_SIZE)

    def unmap_and_query(self, iova: int, size: int) -> tuple[tuple[AnyCall, bool], ...]:
        """Query without clearing, then unmap: the bits die with the mapping."""
        return (self.query_call(iova, size, clear=False), True), (self.unmap_call(iova, size), False)

    def bits_of(self, answer: Answer) -> Bitmap | None:
        """Return a query's bitmap."""
        return answer if isinstance(answer, Bitmap) else None

    def nothing_to_unmap(self, failure: Failed) -> bool:
        """ENOENT: a named range that holds no mapping."""
        return failure.errno == errno.ENOENT

    def set_tracking(self, *, on: bool) -> None:
        """IOMMU_HWPT_SET_DIRTY_TRACKING."""
        if self._hwpt is None:
            raise AssertionError("A container without a hardware page table cannot track")
        self.descriptor.call(HwptSetDirtyTracking(hwpt_id=self._hwpt, enable=on))

    def batch_descriptors(self) -> tuple[int, ...]:
        """Return RAM's descriptor, to which mappings by file refer as number 0."""
        return (self._ram,)


def _number(answer: Answer) -> int:
    if not isinstance(answer, Number):
        raise HostCallFailed(IoasAlloc(), errno.EPROTO)
    return answer.value
