"""What a device driver inside the guest asks of the guest kernel's DMA layer.

With `iommu=nopt` the VT-d driver maps each buffer at an IOVA and takes the mapping away after use; with `iommu=pt`,
or without a vIOMMU, a buffer's IOVA is its guest-physical address and nothing is mapped.
"""

from collections.abc import Sequence
from typing import Protocol

from vmm.memory.quantities import GuestPhysicalAddress, Iova

Buffer = tuple[GuestPhysicalAddress, int]
Mapping = tuple[Iova, int]


class MapFailed(Exception):
    """Buffers could not be made visible: no table page or no IOVA is left. None of the batch is mapped."""


class DmaMapper(Protocol):
    """dma_map and dma_unmap, in batches: one invalidation command ends each."""

    def map(self, buffers: Sequence[Buffer]) -> list[Iova]:
        """Make buffers (address, length in bytes, both whole pages) visible to the device.

        Raises:
            MapFailed: Nothing of the batch is mapped; the driver may try again after an unmap.
        """

    def unmap(self, mappings: Sequence[Mapping]) -> None:
        """Take buffers away from the device; it must not use them any more."""


class RegisterPort(Protocol):
    """A device's or the vIOMMU's registers, as guest code reaches them."""

    def read(self, offset: int) -> int:
        """Read a register."""

    def write(self, offset: int, value: int) -> None:
        """Write a register; its effect has happened when this returns."""


class DevicePort(RegisterPort, Protocol):
    """A device with a doorbell."""

    def ring_doorbell(self) -> None:
        """Tell the device that the request ring has grown."""
