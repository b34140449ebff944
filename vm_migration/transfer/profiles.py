"""What an attempt may do where pre-copy gains nothing any more: three profiles, a table.

::

    profile     of the vCPUs' time it may take   of the devices'   patience until a stall is one   relaxations
    gentle      nothing                          nothing           40 s                            8
    balanced    at most 50 %                     nothing           20 s                            8
    urgent      at most 90 %                     at most 80 %       5 s                            8

No profile goes over the downtime limit, and none differs from another where nothing stalls. 40 s is KubeVirt's
patience (VEP 248); QEMU's auto-converge takes up to 99 % (`max-cpu-throttle`), and holds no device. A held device
answers nobody and a network card loses packets, so only who asked for urgency is given that.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Profile:
    """One row."""

    name: str
    throttle_maximum: int
    """Of the vCPUs' time, in percent, what may be taken from them; 0: they are left alone."""
    patience_ms: float
    """For how long nothing may be gained before that is a stall; halved for each of its later steps."""
    relaxations: int = 8
    """How often, in one stall, a larger remainder may become the one at which the guest is stopped."""
    device_maximum: int = 0
    """Of the devices' time, in percent, what may be taken; what a machine's process takes at most is MOST_PERCENT."""


GENTLE: Final = Profile("gentle", throttle_maximum=0, patience_ms=40_000)
BALANCED: Final = Profile("balanced", throttle_maximum=50, patience_ms=20_000)
URGENT: Final = Profile("urgent", throttle_maximum=90, patience_ms=5_000, device_maximum=80)
PROFILES: Final = {profile.name: profile for profile in (GENTLE, BALANCED, URGENT)}
