"""What one machine's part of the host is made of."""

import msgspec


class HostConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine's part of the host has: given to `viaduct-vfio-host` as JSON at start."""

    devices: tuple["DeviceConfiguration", ...]
    interrupt_remapping: bool = True
    address_width: int = 48
    second_stage: bool = True
    page_size: int = 4096
    """The host's page size: 4, 16 or 64 KiB."""
    leaf_size: int = 0
    """The largest leaf of its IO page tables, in bytes; 0 for leaves of a page each."""
    update_vaddr: bool = True
    """type1 lets user addresses be abandoned and registered anew (VFIO_UPDATE_VADDR, Linux 5.12)."""
    change_process: bool = True
    """iommufd knows IOMMU_IOAS_CHANGE_PROCESS (Linux 6.13)."""
    limits_locked_memory: bool = False
    """What devices reach of a process's memory counts against its RLIMIT_MEMLOCK; else it may have CAP_IPC_LOCK."""


class DeviceConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """One passed-through device of the host."""

    name: str
    model: str
    iommu_dirty_tracking: bool = True
    mediated: bool = False
    dma_log: bool = False
    """The device has a DMA logger."""
    log_width: int = 48
    """How many address bits its logger can cover in one range."""
    local_memory: int = 0
    """Bytes of the device's own memory, which is its state."""
    intx: bool = False
    """Its interrupt is a line (INTx), which is masked as it is raised; else a message (MSI)."""
    p2p: bool = True
    """Its migration driver knows the states in which it starts no access of its own, as it does of itself."""
