"""Who tracks a container's dirty pages (semantics 2.1, 2.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Tracker(Enum):
    """The tracker that a container uses while dirty tracking is on."""

    DEVICE_LOG = "device-log"
    IOMMU = "iommu"
    """Hardware dirty bits in the host's IO page table: exact, per leaf."""
    PERPETUAL = "perpetual"
    """type1: everything that is mapped, always."""
    NONE = "none"
    """Nothing tracks: every range that is queried counts as wholly dirty."""


@dataclass(frozen=True, slots=True)
class TrackedDevice:
    """What a device brings to the decision."""

    has_log: bool
    log_disabled: bool = False


def tracker(devices: Sequence[TrackedDevice], *, container_tracks: bool, type1: bool) -> Tracker:
    """Decide for one container; a mix of loggers and others uses the container's tracker for all of them."""
    if devices and all(device.has_log and not device.log_disabled for device in devices):
        return Tracker.DEVICE_LOG
    if not container_tracks:
        return Tracker.NONE
    return Tracker.PERPETUAL if type1 else Tracker.IOMMU


def is_exact(chosen: Tracker) -> bool:
    """Tell whether a clean page stays clean under a tracker; without that no number of rounds converges."""
    return chosen in (Tracker.DEVICE_LOG, Tracker.IOMMU)
