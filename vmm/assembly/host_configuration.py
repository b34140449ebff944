"""What the host process of a machine is started with. Of its own, as an agent starts machines and builds none."""

from vfio_host.interface.calls import DeviceConfiguration, HostConfiguration
from vmm.assembly.specification import MachineSpecification


def host_configuration(specification: MachineSpecification, host_page_size: int = 4096) -> HostConfiguration:
    """Return what the host process of a machine must have, on a host with pages of so many bytes."""
    return HostConfiguration(
        devices=tuple(
            DeviceConfiguration(
                name=device.name,
                model=device.model,
                iommu_dirty_tracking=device.backend == "iommufd" and device.host_iommu_dirty_tracking,
                mediated=device.mediated,
                dma_log=device.device_dirty_tracking,
                local_memory=device.local_memory if device.model == "gpu" else 0,
                intx=device.interrupt == "intx",
                p2p=device.p2p,
            )
            for device in specification.device
        ),
        page_size=host_page_size,
    )
