"""How much of their time is taken from who dirties memory faster than it is sent: from vCPUs, and last from devices.

vCPUs are throttled as QEMU's auto-converge does: the first step takes 20 % of their time, each further one 10 % more,
up to what the profile allows; within an attempt it never falls. A step comes where the rounds have stalled
(vm_migration.transfer.stall), not at every round.

It does nothing to a device: DMA goes on at full speed while vCPUs stand. So no step is taken where what only vCPUs
wrote is too little of what is dirtied for the rest to shrink: the guest would pay, and nothing be gained.

Devices have a throttle of their own (vmm.vfio.device_throttle), with the same steps. It costs the guest more, packets
and time in which nothing answers, so it comes last, and only where all of this holds: the profile allows it, no step of
the vCPUs' is left that is worth it, devices wrote a noticeable part of what is dirtied, and that part alone is what
does not fit the downtime limit.
"""

from dataclasses import dataclass
from typing import Final

from vm_migration.transfer.profiles import Profile

INITIAL: Final = 20
INCREMENT: Final = 10
_WORTH_IT: Final = 0.2
"""The least share of the dirtied pages that only vCPUs wrote, or that devices wrote, for a step of theirs."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """What is taken from vCPUs and from devices, in percent of their time; None where it cannot be."""

    vcpus: int | None = None
    devices: int | None = None


@dataclass(frozen=True, slots=True)
class Dirtied:
    """What a round has left, in pages."""

    pages: int
    by_devices: int
    """A page may have been written by vCPUs too."""
    devices_exceed: bool
    """What devices wrote does not fit the downtime limit by itself, and a standstill without it would."""


def stepped(held: Throttle, dirtied: Dirtied, profile: Profile) -> Throttle:
    """Return what is taken after the next step: one of the two rises, or neither."""
    if held.vcpus is not None and is_worth_it(dirtied.pages, dirtied.by_devices):
        vcpus = raised(held.vcpus, profile.throttle_maximum)
        if vcpus > held.vcpus:
            return Throttle(vcpus, held.devices)
    if held.devices is not None and dirtied.devices_exceed and _devices_matter(dirtied):
        return Throttle(held.vcpus, raised(held.devices, profile.device_maximum))
    return held


def raised(percent: int, maximum: int) -> int:
    """Return the next step after one; never less than it, and no more than a maximum that it kept."""
    return max(percent, min(maximum, percent + INCREMENT if percent else INITIAL))


def is_worth_it(dirtied_pages: int, dma_dirtied_pages: int) -> bool:
    """Return whether taking time from vCPUs makes what is dirtied noticeably less."""
    return dirtied_pages > 0 and dirtied_pages - dma_dirtied_pages >= _WORTH_IT * dirtied_pages


def _devices_matter(dirtied: Dirtied) -> bool:
    return dirtied.pages > 0 and dirtied.by_devices >= _WORTH_IT * dirtied.pages
