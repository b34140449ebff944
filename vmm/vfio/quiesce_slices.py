"""When devices work and when they are quiesced, in a throttle that ends by itself.

::

    host      |------------- 200 ms -------------|------------- 200 ms -------------|
    devices   |-- work --|------ quiesced -------|-- work --|------ quiesced -------|

A vCPU that is throttled is only not scheduled, and keeps 10 ms of each period (vmm.guest.vcpu_clock). For a device both
ends of a slice are calls of the host's driver to the device, for which a real one takes up to some milliseconds: so a
period is longer, and a device keeps a fifth of it at least. What waits in a device's queue it does when it works
again, and catches up; only what found no place in the queue was never begun: for that too a slice must be long. It is
no longer than 160 ms because a TCP connection of the guest takes a packet for lost after 200 at the earliest (Linux,
TCP_RTO_MIN), and would send it again to a card that stands; a driver's patience with a command is of seconds.
"""

from dataclasses import dataclass
from typing import Final

PERIOD_NS: Final = 200_000_000
MOST_PERCENT: Final = 80
"""Of a device's time, what can be taken from it."""


@dataclass(frozen=True, slots=True)
class QuiesceSlices:
    """A throttle from one moment to another, in nanoseconds of the host's clock; as it is made, it takes nothing."""

    taken: int = 0
    since_ns: int = 0
    until_ns: int = 0

    def asked(self, percent: int, now_ns: int, until_ns: int) -> "QuiesceSlices":
        """Return what holds when so much is taken until a moment; asked for what holds, it only holds for longer."""
        if percent and percent == self.percent(now_ns):
            return QuiesceSlices(percent, self.since_ns, until_ns)
        return QuiesceSlices(percent, now_ns, until_ns)

    def percent(self, now_ns: int) -> int:
        """Return how much is taken at a moment."""
        return self.taken if now_ns < self.until_ns else 0

    def quiesced(self, now_ns: int) -> bool:
        """Return whether a moment is in a slice that is taken."""
        return self.percent(now_ns) > 0 and (now_ns - self.since_ns) % PERIOD_NS >= self._kept_ns

    def next_change(self, now_ns: int) -> int | None:
        """Return when to look again: the end of the slice or of the throttle; None where nothing is taken."""
        if not self.percent(now_ns):
            return None
        into = (now_ns - self.since_ns) % PERIOD_NS
        slice_ends = now_ns - into + (self._kept_ns if into < self._kept_ns else PERIOD_NS)
        return min(slice_ends, self.until_ns)

    @property
    def _kept_ns(self) -> int:
        return PERIOD_NS * (100 - self.taken) // 100
