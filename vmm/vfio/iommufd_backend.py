"""A container on iommufd: an IO address space, mapped by file, and the hardware page tables that show it to devices.

Several containers share one open /dev/iommu, each with an IO address space of its own. A device is attached to the
first hardware page table that its IOMMU can use, else to a new one (semantics 1.4); dirty bits are in these tables, so
tracking is switched in each of them that can, and what any of them says is dirty is dirty.
"""

import contextlib
import errno
from dataclasses import dataclass
from typing import Final

from vfio_host.interface.calls import (
    Answer,
    AnyCall,
    AttachPt,
    BindIommufd,
    Bitmap,
    Destroy,
    Failed,
    GetHwInfo,
    HwptAlloc,
    HwptGetDirtyBitmap,
    HwptSetDirtyTracking,
    IoasAlloc,
    IoasIovaRanges,
    IoasMapFile,
    IoasUnmap,
    IovaRanges,
    Number,
)
from vfio_host.interface.numbers import DEV_IOMMU, U64_MAX, GetDirtyFlags, HwptFlags
from vmm.vfio.backend import NO_LIMIT, READ_ONLY, READ_WRITE
from vmm.vfio.host_port import Descriptor, HostCallFailed, HostPort, OpenObject

_DIRTY_TRACKING: Final = 1


@dataclass(frozen=True, slots=True)
class _HardwarePageTable:
    id: int
    tracks: bool


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a device is: its id in the iommufd, and its page table, or the address space where it is mediated."""

    device_id: int
    table: int


class IommufdBackend:
    """Implements `vmm.vfio.backend.Backend` (semantics 1.4, 3.4, 3.5)."""

    perpetual: Final = False
    max_bitmap_bytes: Final = NO_LIMIT

    def __init__(self, iommufd: OpenObject, ram: int) -> None:
        """Make an empty address space.

        Raises:
            HostCallFailed: The host has no more of them.
        """
        self.descriptor: Final = iommufd.descriptor
        self.iommufd: Final = iommufd.id
        self._ram: Final = ram
        self.address_space: Final = _number(self.descriptor, IoasAlloc())
        self.placements: Final[list[Placement]] = []
        """Of its devices, in the order in which they were attached."""
        self._tables: Final[list[_HardwarePageTable]] = []
        ranges = IoasIovaRanges(ioas_id=self.address_space)
        answer = self.descriptor.call(ranges)
        if not isinstance(answer, IovaRanges):
            raise HostCallFailed(ranges, errno.EPROTO)
        self.page_size: Final = answer.alignment

    @property
    def tracks(self) -> bool:
        """Whether any hardware page table was allocated with dirty tracking."""
        return any(table.tracks for table in self._tables)

    def attach(self, device: Descriptor, *, mediated: bool) -> bool:
        """Show a device this address space; tell whether its own page table tracks.

        Raises:
            HostCallFailed: The device is not attached.
        """
        device_id = _number(device, BindIommufd(iommufd=self.iommufd))
        if mediated:  # no page table of its own: it is attached to the address space
            device.call(AttachPt(pt_id=self.address_space))
            self.placements.append(Placement(device_id, self.address_space))
            return False
        capable = bool(_number(self.descriptor, GetHwInfo(dev_id=device_id)) & _DIRTY_TRACKING)
        table = self._attached_before(device) or self._attached_anew(device, device_id, tracks=capable)
        self.placements.append(Placement(device_id, table.id))
        return table.tracks

    def map_call(self, iova: int, offset: int, size: int, *, writable: bool) -> AnyCall:
        """Map by file: no user address is involved, so that another process can take the mappings over."""
        flags = READ_WRITE if writable else READ_ONLY
        return IoasMapFile(ioas_id=self.address_space, flags=flags, file=0, start=offset, length=size, iova=iova)

    def unmap_call(self, iova: int, size: int) -> AnyCall:
        """IOMMU_IOAS_UNMAP."""
        return IoasUnmap(ioas_id=self.address_space, iova=iova, length=size)

    def unmap_all_calls(self) -> tuple[AnyCall, ...]:
        """IOMMU_IOAS_UNMAP of everything."""
        return (self.unmap_call(0, U64_MAX),)

    def query_calls(self, iova: int, size: int, *, clear: bool) -> tuple[AnyCall, ...]:
        """IOMMU_HWPT_GET_DIRTY_BITMAP of each page table that tracks."""
        flags = GetDirtyFlags.NONE if clear else GetDirtyFlags.NO_CLEAR
        return tuple(
            HwptGetDirtyBitmap(hwpt_id=table.id, flags=flags, iova=iova, length=size, page_size=self.page_size)
            for table in self._tables
            if table.tracks
        )

    def unmap_with_bits_call(self, iova: int, size: int) -> AnyCall:
        """There is no such call: the bits are read before the unmapping destroys them."""
        raise AssertionError(f"iommufd does not unmap 0x{iova:x}, 0x{size:x} with its bits")

    def bits_of(self, answer: Answer) -> Bitmap | None:
        """Return a query's bitmap."""
        return answer if isinstance(answer, Bitmap) else None

    def nothing_to_unmap(self, failure: Failed) -> bool:
        """ENOENT: a named range that holds no mapping."""
        return failure.errno == errno.ENOENT

    def set_tracking(self, *, on: bool) -> None:
        """IOMMU_HWPT_SET_DIRTY_TRACKING of each page table that can, or of none."""
        switched: list[_HardwarePageTable] = []
        for table in self._tables:
            if not table.tracks:
                continue
            try:
                self.descriptor.call(HwptSetDirtyTracking(hwpt_id=table.id, enable=on))
            except HostCallFailed as error:
                for done in switched:
                    with contextlib.suppress(HostCallFailed):  # why the switching failed is what is told
                        self.descriptor.call(HwptSetDirtyTracking(hwpt_id=done.id, enable=not on))
                raise HostCallFailed(error.call, errno.EINVAL) from error
            switched.append(table)

    def batch_descriptors(self) -> tuple[int, ...]:
        """Return RAM's descriptor, to which mappings by file refer as number 0."""
        return (self._ram,)

    def _attached_before(self, device: Descriptor) -> _HardwarePageTable | None:
        """Attach to a table that is there, where one suits the device: EINVAL says that it does not."""
        for table in self._tables:
            try:
                device.call(AttachPt(pt_id=table.id))
            except HostCallFailed as error:
                if error.errno != errno.EINVAL:
                    raise
            else:
                return table
        return None

    def _attached_anew(self, device: Descriptor, device_id: int, *, tracks: bool) -> _HardwarePageTable:
        flags = HwptFlags.DIRTY_TRACKING if tracks else HwptFlags.NONE
        number = _number(self.descriptor, HwptAlloc(flags=flags, dev_id=device_id, pt_id=self.address_space))
        try:
            device.call(AttachPt(pt_id=number))
        except HostCallFailed:
            with contextlib.suppress(HostCallFailed):  # why the attaching failed is what is told
                self.descriptor.call(Destroy(id=number))
            raise
        self._tables.append(_HardwarePageTable(number, tracks))
        return self._tables[-1]


def open_iommufd(host: HostPort) -> OpenObject:
    """Open /dev/iommu.

    Raises:
        HostCallFailed: The host has none.
    """
    return host.open(DEV_IOMMU)


def _number(descriptor: Descriptor, call: AnyCall) -> int:
    answer = descriptor.call(call)
    if not isinstance(answer, Number):
        raise HostCallFailed(call, errno.EPROTO)
    return answer.value
