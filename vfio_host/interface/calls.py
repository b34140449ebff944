"""The calls of the host kernel, by their names, over descriptors.

A hypervisor connects to the machine's `vfio-host.sock` and *opens* objects by the paths it would open on Linux.
Each open answers with a real file descriptor (one end of a socket pair): calls travel on it, it can be passed to
another process with SCM_RIGHTS, and closing its last copy releases the object, as the kernel does. Calls are sent as
a batch, executed in order between two steps of the devices, and answered one by one: a result, or an errno. A batch
stops at no error: each call stands for one ioctl of a sequence, and the caller reads every answer.

Source: semantics 3.3, 3.4, 7.1, 7.4 (Linux vfio.h and iommufd.h); numbers of flags are the kernel's. What calls answer
with is in `answers`, what a host is started with in `configuration`; both can be imported from here.
"""

from typing import Final

import msgspec

from vfio_host.interface.answers import (
    Answer,
    Bitmap,
    Data,
    Done,
    Failed,
    IovaRanges,
    Number,
    Opened,
    PrecopyInfo,
    Type1Info,
    Unmapped,
)
from vfio_host.interface.configuration import DeviceConfiguration, HostConfiguration
from vfio_host.interface.numbers import (
    DeviceState,
    DirtyPagesFlags,
    Extension,
    Feature,
    GetDirtyFlags,
    HwptFlags,
    MapFlags,
    UnmapFlags,
)

__all__ = [
    "Answer", "Answers", "AnyCall", "AttachPt", "Batch", "BindIommufd", "Bitmap", "Call", "CheckExtension", "Data",
    "Destroy", "DetachPt", "DeviceConfiguration", "DirtyPages", "DmaLoggingReport", "DmaLoggingStart",
    "DmaLoggingStop", "Done", "Dup", "Failed", "GetFeature", "GetHwInfo", "GetInfo", "GetPrecopyInfo",
    "GroupGetDevice", "GroupSetContainer", "HostConfiguration", "HwptAlloc", "HwptGetDirtyBitmap",
    "HwptSetDirtyTracking", "IoasAlloc", "IoasChangeProcess", "IoasIovaRanges", "IoasMap", "IoasMapFile", "IoasUnmap",
    "IovaRanges", "Irqfd", "LockedMemory", "MapDma", "Number", "Open", "Opened", "PrecopyInfo", "ReadData",
    "RegionRead", "RegionWrite", "RegisterMemory", "ReportWrites", "Reset", "SetDeviceState", "SetEventfds",
    "SetIommu", "Type1Info", "UnmapDma", "Unmapped", "UnmaskIntx", "WriteData", "answers_decoder", "batch_decoder",
    "encode",
]  # fmt: skip


class Call(msgspec.Struct, frozen=True, tag=True, kw_only=True, gc=False):
    """One call on a descriptor. Calls and answers hold values only, so the collector need not look at them."""


# ---- on the connection itself -------------------------------------------------------------------


class Open(Call, frozen=True, tag=True, kw_only=True):
    """open(2); answers with a descriptor. ENOENT for what this host does not have."""

    path: str


class Dup(Call, frozen=True, tag=True, kw_only=True):
    """Another descriptor of the same open file, for another process -> Opened; its id is not told.

    Calls of two processes on one file do not meet in a kernel. Here they would on one socket, so each has its own; the
    file is released when the last of them is closed.
    """


class RegisterMemory(Call, frozen=True, tag=True, kw_only=True):
    """Tell what lies at user addresses of the calling process: the memfd that comes along.

    It stands for what the kernel knows of the caller's mm, so that the calls that take a user address can.
    """

    vaddr: int
    length: int


class ReportWrites(Call, frozen=True, tag=True, kw_only=True):
    """The kernel's witness of what this host process wrote to RAM -> Data, a bitmap of the registered memory.

    The first call arms it and reports every page. EOPNOTSUPP where the kernel offers none, ENXIO before any memory
    is registered. Hardware has no such call: a page that a real device wrote is hashed at the pause.
    """


class LockedMemory(Call, frozen=True, tag=True, kw_only=True):
    """VmLck of the calling process, as far as DMA mappings of this host's devices are it -> Number, in bytes."""


# ---- /dev/iommu ---------------------------------------------------------------------------------


class IoasAlloc(Call, frozen=True, tag=True, kw_only=True):
    """IOMMU_IOAS_ALLOC -> id of an IO address space."""


class IoasIovaRanges(Call, frozen=True, tag=True, kw_only=True):
    """IOMMU_IOAS_IOVA_RANGES -> IovaRanges."""

    ioas_id: int


class IoasMap(Call, frozen=True, tag=True, kw_only=True):
    """IOMMU_IOAS_MAP with FIXED_IOVA."""

    ioas_id: int
    flags: MapFlags
    user_va: int
    length: int
    iova: int


class IoasMapFile(Call, frozen=True, tag=True, kw_only=True):
    """IOMMU_IOAS_MAP_FILE: maps by file offset; `file` indexes the descriptors that came with the batch."""

    ioas_id: int
    flags: MapFlags
    file: int
    start: int
    length: int
    iova: int


class IoasUnmap(Call, frozen=True, tag=True, kw_only=True):
    """IOMMU_IOAS_UNMAP -> bytes unmapped; iova 0 with length U64_MAX is everything."""

    ioas_id: int
    iova: int
    length: int


class IoasChangeProcess(Call, frozen=True, tag=True, kw_only=True):
    """IOMMU_IOAS_CHANGE_PROCESS: the mappings of this iommufd are the calling process's from here on.

    EINVAL unless all of them are by file; ENOTTY where the kernel does not know the call.
    """


class HwptAlloc(Call, frozen=True, tag=True, kw_only=True):
    """IOMMU_HWPT_ALLOC for a bound device -> id of a hardware page table."""

    flags: HwptFlags
    dev_id: int
    pt_id: int


class GetHwInfo(Call, frozen=True, tag=True, kw_only=True):
    """IOMMU_GET_HW_INFO -> capability bits; bit 0 is dirty tracking."""

    dev_id: int


class HwptSetDirtyTracking(Call, frozen=True, tag=True, kw_only=True):
    """IOMMU_HWPT_SET_DIRTY_TRACKING."""

    hwpt_id: int
    enable: bool


class HwptGetDirtyBitmap(Call, frozen=True, tag=True, kw_only=True):
    """IOMMU_HWPT_GET_DIRTY_BITMAP -> Bitmap; bit i for the page at iova + i * page_size."""

    hwpt_id: int
    flags: GetDirtyFlags
    iova: int
    length: int
    page_size: int


class Destroy(Call, frozen=True, tag=True, kw_only=True):
    """IOMMU_DESTROY of an object id."""

    id: int


# ---- type1: /dev/vfio/vfio and groups ------------------------------------------------------------


class GroupSetContainer(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_GROUP_SET_CONTAINER, on a group; the container is named by the id that its open answered with."""

    container: int


class GroupGetDevice(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_GROUP_GET_DEVICE_FD, on a group -> Opened with the device's descriptor."""

    name: str


class SetIommu(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_SET_IOMMU with type1v2, on a container."""


class CheckExtension(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_CHECK_EXTENSION, on a container -> Number, 1 or 0."""

    extension: Extension


class GetInfo(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_IOMMU_GET_INFO -> Type1Info."""


class MapDma(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_IOMMU_MAP_DMA."""

    flags: MapFlags
    vaddr: int
    iova: int
    size: int


class UnmapDma(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_IOMMU_UNMAP_DMA -> Unmapped."""

    flags: UnmapFlags
    iova: int
    size: int
    pgsize: int = 0
    bitmap_size: int = 0


class DirtyPages(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_IOMMU_DIRTY_PAGES -> Bitmap for GET_BITMAP."""

    flags: DirtyPagesFlags
    iova: int = 0
    size: int = 0
    pgsize: int = 0
    bitmap_size: int = 0


# ---- devices -------------------------------------------------------------------------------------


class BindIommufd(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_DEVICE_BIND_IOMMUFD -> dev_id; the iommufd is named by the id that its open answered with."""

    iommufd: int


class AttachPt(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_DEVICE_ATTACH_IOMMUFD_PT to an IOAS or HWPT id; EINVAL means incompatible, try the next."""

    pt_id: int


class DetachPt(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_DEVICE_DETACH_IOMMUFD_PT."""


class Reset(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_DEVICE_RESET: back to RUNNING with empty registers."""


class RegionWrite(Call, frozen=True, tag=True, kw_only=True):
    """pwrite(2) of a 64-bit register of region 0 (the device's data sheet names them)."""

    offset: int
    value: int


class RegionRead(Call, frozen=True, tag=True, kw_only=True):
    """pread(2) of a 64-bit register of region 0 -> value."""

    offset: int


class SetEventfds(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_DEVICE_SET_IRQS and the ioeventfd of the doorbell; both index the descriptors of the batch."""

    completion: int
    doorbell: int


class UnmaskIntx(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_DEVICE_SET_IRQS with ACTION_UNMASK: what is due is raised at once. EINVAL where interrupts are messages."""


class GetFeature(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_DEVICE_FEATURE with GET of MIGRATION, MIG_DEVICE_STATE or MIG_DATA_SIZE -> int; PROBE when probe."""

    feature: Feature
    probe: bool = False


class DmaLoggingStart(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_DEVICE_FEATURE SET DMA_LOGGING_START: log writes to ranges (iova, length) -> Number, the page size used.

    ENOTTY without a log, EINVAL for no range, misalignment or overlap, E2BIG for too many, EOVERFLOW for a wrap;
    EOPNOTSUPP for ranges that are together wider than the device's log, as mlx5 says. Until STOP a second START is
    EINVAL.
    """

    page_size: int
    ranges: tuple[tuple[int, int], ...]


class DmaLoggingStop(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_DEVICE_FEATURE SET DMA_LOGGING_STOP."""


class DmaLoggingReport(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_DEVICE_FEATURE GET DMA_LOGGING_REPORT -> Bitmap; what is reported is cleared.

    EINVAL for a page size below 4096 or no power of two, and when nothing was started; EOVERFLOW for a wrap.
    """

    iova: int
    length: int
    page_size: int


class SetDeviceState(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_DEVICE_FEATURE SET MIG_DEVICE_STATE -> Opened with the data descriptor, or None when there is none."""

    state: DeviceState


# ---- /dev/kvm ------------------------------------------------------------------------------------


class Irqfd(Call, frozen=True, tag=True, kw_only=True):
    """KVM_IRQFD: an interrupt of the guest is raised by an eventfd, which indexes the descriptors of the batch.

    EBUSY while any machine, this one included, has that eventfd; closing a machine's descriptor gives up all of its.
    """

    eventfd: int
    gsi: int
    assign: bool = True
    """ENOENT to give up what was not assigned."""


# ---- migration data descriptors --------------------------------------------------------------------


class GetPrecopyInfo(Call, frozen=True, tag=True, kw_only=True):
    """VFIO_MIG_GET_PRECOPY_INFO -> PrecopyInfo; EINVAL outside PRE_COPY and PRE_COPY_P2P."""


class ReadData(Call, frozen=True, tag=True, kw_only=True):
    """read(2) of device state -> bytes; empty at the end (STOP_COPY), ENOMSG for nothing now (PRE_COPY)."""

    size: int


class WriteData(Call, frozen=True, tag=True, kw_only=True):
    """write(2) of device state while RESUMING -> bytes taken. It is not copied out of its message: it is a view."""

    data: memoryview


AnyCall = (
    Open | Dup | RegisterMemory | ReportWrites | LockedMemory
    | IoasAlloc | IoasIovaRanges | IoasMap | IoasMapFile | IoasUnmap | IoasChangeProcess
    | HwptAlloc | GetHwInfo | HwptSetDirtyTracking | HwptGetDirtyBitmap | Destroy
    | GroupSetContainer | GroupGetDevice | SetIommu | CheckExtension | GetInfo | MapDma | UnmapDma | DirtyPages
    | BindIommufd | AttachPt | DetachPt | Reset | RegionWrite | RegionRead | SetEventfds | UnmaskIntx | Irqfd
    | GetFeature | SetDeviceState | GetPrecopyInfo | ReadData | WriteData
    | DmaLoggingStart | DmaLoggingStop | DmaLoggingReport
)  # fmt: skip


class Batch(msgspec.Struct, frozen=True):
    """Calls in the order in which they are to happen."""

    calls: tuple[AnyCall, ...]


class Answers(msgspec.Struct, frozen=True):
    """One answer for each call of a batch."""

    answers: tuple[Answer, ...]


encode = msgspec.msgpack.Encoder().encode
batch_decoder: Final = msgspec.msgpack.Decoder(Batch)
answers_decoder: Final = msgspec.msgpack.Decoder(Answers)
