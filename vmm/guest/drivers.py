"""Which driver the guest has for which model of device."""

from collections.abc import Mapping
from typing import Final

from vmm.guest.device_driver import DeviceDriver, DriverModel
from vmm.guest.dma import DevicePort
from vmm.guest.gpu_driver import GpuDriver
from vmm.guest.layout import DeviceArea
from vmm.guest.nic_driver import NicDriver
from vmm.guest.qat_driver import QatDriver
from vmm.memory.guest_physical import GuestMemory

DRIVERS: Final[Mapping[str, DriverModel]] = {
    "qat": QatDriver,
    "nic": NicDriver,
    "gpu": GpuDriver,
    "plain": QatDriver,
}


def make_driver(
    model: str,
    memory: GuestMemory,
    area: DeviceArea,
    port: DevicePort,
    *,
    rate: int,
    seed: int,
    dma_after_unmap: bool = False,
) -> DeviceDriver:
    """Make a model's driver; only the accelerator's knows how to misbehave."""
    driver = DRIVERS[model]
    if dma_after_unmap and driver is QatDriver:
        return QatDriver(memory, area, port, rate=rate, seed=seed, dma_after_unmap=True)
    return driver(memory, area, port, rate=rate, seed=seed)
