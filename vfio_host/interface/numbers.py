"""Paths, limits, flags and states of the host kernel's calls; the numbers are the kernel's (semantics 3, 7)."""

from enum import IntEnum, IntFlag
from typing import Final

# Paths that can be opened; devices are VFIO_CDEV + name, type1 groups are VFIO_GROUP + name.
DEV_IOMMU: Final = "/dev/iommu"
DEV_VFIO: Final = "/dev/vfio/vfio"
DEV_KVM: Final = "/dev/kvm"
VFIO_CDEV: Final = "/dev/vfio/devices/"
VFIO_GROUP: Final = "/dev/vfio/group/"

PAGE_SIZE: Final = 4096
LEAF_SIZES: Final = {
    4 << 10: (1 << 30, 2 << 20, 4 << 10),
    16 << 10: (32 << 20, 16 << 10),
    64 << 10: (512 << 20, 64 << 10),
}
"""What an IOMMU's page tables map at once, largest first, by the host's page size (4 KiB: VT-d; others: SMMUv3)."""
MAX_DIRTY_BITMAP_BYTES: Final = 1 << 28
"""type1's limit for one bitmap (semantics 3.2)."""
U64_MAX: Final = (1 << 64) - 1


class MapFlags(IntFlag):
    """IOMMU_IOAS_MAP and VFIO_IOMMU_MAP_DMA."""

    READ = 1
    WRITE = 2
    VADDR = 4


class UnmapFlags(IntFlag):
    """VFIO_IOMMU_UNMAP_DMA."""

    NONE = 0
    GET_DIRTY_BITMAP = 1
    ALL = 2
    VADDR = 4


class Extension(IntEnum):
    """What VFIO_CHECK_EXTENSION is asked for."""

    UNMAP_ALL = 9
    UPDATE_VADDR = 10


class HwptFlags(IntFlag):
    """IOMMU_HWPT_ALLOC."""

    NONE = 0
    DIRTY_TRACKING = 2


class GetDirtyFlags(IntFlag):
    """IOMMU_HWPT_GET_DIRTY_BITMAP."""

    NONE = 0
    NO_CLEAR = 1


class DirtyPagesFlags(IntFlag):
    """VFIO_IOMMU_DIRTY_PAGES; exactly one."""

    START = 1
    STOP = 2
    GET_BITMAP = 4


class DeviceState(IntEnum):
    """enum vfio_device_mig_state."""

    ERROR = 0
    STOP = 1
    RUNNING = 2
    STOP_COPY = 3
    RESUMING = 4
    RUNNING_P2P = 5
    PRE_COPY = 6
    PRE_COPY_P2P = 7


class MigrationFlags(IntFlag):
    """What a device's migration supports (VFIO_MIGRATION_*)."""

    STOP_COPY = 1
    P2P = 2
    PRE_COPY = 4


MAX_LOGGING_RANGES: Final = PAGE_SIZE // 16
"""DMA_LOGGING_START's limit: as many ranges as fit into a page (semantics 2.6)."""


class Feature(IntEnum):
    """VFIO_DEVICE_FEATURE indexes."""

    MIGRATION = 1
    MIG_DEVICE_STATE = 2
    DMA_LOGGING_START = 6
    DMA_LOGGING_STOP = 7
    DMA_LOGGING_REPORT = 8
    MIG_DATA_SIZE = 9
