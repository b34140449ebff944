"""The host's IOMMU as one device meets it; containers of both kinds, iommufd and type1, ask it the same questions."""

from dataclasses import dataclass

from vfio_host.interface.numbers import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class DeviceIommu:
    """What the host's IOMMU offers in front of one device; `mediated` devices have none of their own."""

    dirty_tracking: bool = True
    address_width: int = 48
    second_stage: bool = True
    interrupt_remapping: bool = True
    mediated: bool = False
    leaf_size: int = PAGE_SIZE

    @property
    def tracks(self) -> bool:
        """Whether its page tables can tell what the device wrote."""
        return self.dirty_tracking and self.second_stage and not self.mediated
