"""The devices that this host passes through: hardware, IOMMU, migration driver and eventfds of each."""

import contextlib
import os
from typing import Final, Protocol

from vfio_host.device_iommu import DeviceIommu
from vfio_host.devices.migration_driver import MigrationDriver
from vfio_host.devices.qat import Qat
from vfio_host.errors import ConfigurationInvalid
from vfio_host.interface.calls import DeviceConfiguration, HostConfiguration


class DoorbellWatcher(Protocol):
    """Who waits for doorbells."""

    def watch_doorbell(self, device: "PassthroughDevice", descriptor: int) -> None:
        """Begin to wait; `take_doorbell` is called when the descriptor is readable."""

    def unwatch_doorbell(self, descriptor: int) -> None:
        """Wait no more; the descriptor is still open."""


MODELS: Final = ("qat", "plain")
"""`qat` is the accelerator under its own VFIO driver; `plain` is the same under vfio-pci, which cannot migrate it."""


class PassthroughDevice:
    """One device of the host."""

    def __init__(self, settings: DeviceConfiguration, iommu: DeviceIommu) -> None:
        if settings.model not in MODELS:
            raise ConfigurationInvalid(
                f"Device {settings.name} has the unknown model {settings.model!r}; known are {', '.join(MODELS)}"
            )
        self.name: Final = settings.name
        self.iommu: Final = iommu
        self.hardware: Final = Qat(self._raise_completion)
        self.migration: Final = MigrationDriver(self.hardware) if settings.model == "qat" else None
        self.watcher: DoorbellWatcher | None = None
        self._completion: int | None = None
        self._doorbell: int | None = None

    @property
    def has_work(self) -> bool:
        """Tell whether a step would do anything."""
        return (self.migration is None or self.migration.running) and self.hardware.has_work

    def step(self) -> None:
        """Do one bounded piece of work, if the device runs."""
        if self.has_work:
            self.hardware.step()

    def take_doorbell(self) -> None:
        """Empty the doorbell, which is readable, and tell the hardware, in this order: no ring is missed."""
        if self._doorbell is not None:
            os.eventfd_read(self._doorbell)
            self.hardware.ring()

    def reset(self) -> None:
        """Bring the device back to how it was when the host started."""
        if self.migration is not None:
            self.migration.reset()
        else:
            self.hardware.reset()

    def set_eventfds(self, completion: int, doorbell: int) -> None:
        """Keep duplicates of both, in place of those before."""
        completion = os.dup(completion)
        try:
            doorbell = os.dup(doorbell)
        except OSError:
            os.close(completion)
            raise
        self.forget_eventfds()
        self._completion, self._doorbell = completion, doorbell
        if self.watcher is not None:
            self.watcher.watch_doorbell(self, doorbell)

    def forget_eventfds(self) -> None:
        """Close both; completions raise nothing from here on."""
        if self.watcher is not None and self._doorbell is not None:
            self.watcher.unwatch_doorbell(self._doorbell)
        for descriptor in (self._completion, self._doorbell):
            if descriptor is not None:
                os.close(descriptor)
        self._completion = self._doorbell = None

    def _raise_completion(self) -> None:
        if self._completion is not None:
            with contextlib.suppress(OSError):  # a full counter: the event is raised already
                os.eventfd_write(self._completion, 1)


def iommu_of(host: HostConfiguration, device: DeviceConfiguration) -> DeviceIommu:
    """Return what the host's IOMMU offers in front of a device."""
    return DeviceIommu(
        dirty_tracking=device.iommu_dirty_tracking,
        address_width=host.address_width,
        second_stage=host.second_stage,
        interrupt_remapping=host.interrupt_remapping,
        mediated=device.mediated,
    )
