"""The devices that this host passes through: hardware, IOMMU, migration driver and eventfds of each."""

import contextlib
import errno
import os
from typing import Final, Protocol

from vfio_host.device_iommu import DeviceIommu
from vfio_host.devices.gpu import Gpu
from vfio_host.devices.hardware import NEVER, Hardware, MigratableHardware
from vfio_host.devices.migration_driver import MigrationDriver
from vfio_host.devices.nic import Nic
from vfio_host.devices.qat import Qat
from vfio_host.dma_log import DmaLog
from vfio_host.errors import CallRefused, ConfigurationInvalid
from vfio_host.interface.calls import DeviceConfiguration, HostConfiguration
from vfio_host.interface.gpu import LOCAL_GRANULE
from vfio_host.interface.numbers import PAGE_SIZE


class DoorbellWatcher(Protocol):
    """Who waits for doorbells."""

    def watch_doorbell(self, device: "PassthroughDevice", descriptor: int) -> None:
        """Begin to wait; `take_doorbell` is called when the descriptor is readable."""

    def unwatch_doorbell(self, descriptor: int) -> None:
        """Wait no more; the descriptor is still open."""


RANGE_BYTES: Final = 16
"""Of struct vfio_device_feature_dma_logging_range: START takes a page full of them (semantics 2.6)."""
MODELS: Final = ("qat", "nic", "gpu", "plain")
"""`plain` is the accelerator `qat` under vfio-pci, which cannot migrate it; only `nic` can have a DMA log."""


class PassthroughDevice:
    """One device of the host.

    Raises:
        ConfigurationInvalid: There is no such model, or it cannot have the log or the memory that is asked for.
    """

    def __init__(self, settings: DeviceConfiguration, iommu: DeviceIommu, page_size: int = PAGE_SIZE) -> None:
        """Build the device; `page_size` is the host kernel's, whose pages limit how many ranges are logged."""
        _check(settings)
        self.name: Final = settings.name
        self.iommu: Final = iommu
        log = DmaLog(width=settings.log_width, max_ranges=page_size // RANGE_BYTES)
        self.log: Final = log if settings.dma_log else None
        hardware, migratable = self._built(settings)
        self.hardware: Final[Hardware] = hardware
        self.migration: Final = MigrationDriver(migratable, p2p=settings.p2p) if migratable is not None else None
        self.watcher: DoorbellWatcher | None = None
        self._line: Final = settings.intx
        self._masked, self._pending = False, False
        self._completion: int | None = None
        self._doorbell: int | None = None

    def _built(self, settings: DeviceConfiguration) -> tuple[Hardware, MigratableHardware | None]:
        made: MigratableHardware
        match settings.model:
            case "nic":
                made = Nic(self._raise_completion, self.log)
            case "gpu":
                made = Gpu(self._raise_completion, settings.local_memory)
            case _:
                made = Qat(self._raise_completion)
        return made, None if settings.model == "plain" else made

    @property
    def due_ns(self) -> int:
        """When a step would do something: 0 for at once, NEVER while the device is stopped or waits to be told."""
        running = self.migration is None or self.migration.running
        return self.hardware.due_ns if running else NEVER

    @property
    def has_work(self) -> bool:
        """Tell whether a step would do something now, whatever the time."""
        return self.due_ns == 0

    def step(self, now_ns: int) -> None:
        """Do one bounded piece of work, if the device runs and any is due; `now_ns` is any one monotonic clock's."""
        if self.due_ns <= now_ns:
            self.hardware.step(now_ns)

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
        self._masked, self._pending = False, False

    def close(self) -> None:
        """Let go of everything that whoever had the device open gave it; its log ends, which a reset leaves alone."""
        self.reset()
        self.hardware.attach(None)
        if self.log is not None:
            self.log.stop()
        self.forget_eventfds()

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

    def unmask(self) -> None:
        """Let a line be raised again, at once where it is due. EINVAL for a device whose interrupts are messages."""
        if not self._line:
            raise CallRefused(errno.EINVAL, f"Device {self.name} has messages, and no line to unmask")
        self._masked, due, self._pending = False, self._pending, False
        if due:
            self._raise_completion()

    def _raise_completion(self) -> None:
        if self._masked:
            self._pending = True
            return
        self._masked = self._line
        if self._completion is not None:
            with contextlib.suppress(OSError):  # a full counter: the event is raised already
                os.eventfd_write(self._completion, 1)


def _check(settings: DeviceConfiguration) -> None:
    problem = None
    if settings.model not in MODELS:
        problem = f"has the unknown model {settings.model!r}; known are {', '.join(MODELS)}"
    elif settings.dma_log and settings.model != "nic":
        problem = f"is a {settings.model}, which has no DMA log"
    elif not 12 <= settings.log_width <= 64:
        problem = f"cannot have a log of {settings.log_width} address bits"
    elif settings.model == "gpu" and (settings.local_memory <= 0 or settings.local_memory % LOCAL_GRANULE):
        problem = f"cannot have {settings.local_memory} bytes of local memory, but multiples of {LOCAL_GRANULE}"
    if problem is not None:
        raise ConfigurationInvalid(f"Device {settings.name} {problem}")


def iommu_of(host: HostConfiguration, device: DeviceConfiguration) -> DeviceIommu:
    """Return what the host's IOMMU offers in front of a device."""
    return DeviceIommu(
        dirty_tracking=device.iommu_dirty_tracking,
        address_width=host.address_width,
        second_stage=host.second_stage,
        interrupt_remapping=host.interrupt_remapping,
        mediated=device.mediated,
        leaf_size=host.leaf_size,
    )
