"""How long the guest stood still, and in what: six parts that add up.

::

    guest's last     devices    last round     device state     verified    the secret    guest has
    instruction      stopped    acknowledged   sent, loaded     (READY)     leaves        executed
         |--- pause ---|-- last round --|-- device state --|-- verify --|-- handoff --|-- resume --|

The boundaries are on the source's clock; the last one is the arrival of the destination's answer, an upper bound, or,
where both ends share one monotonic clock, the destination's own time of it, which is exact. Parts are disjoint: work
that overlaps counts for the earlier part. They are whole microseconds, so that their sum is exactly the downtime.
"""

from dataclasses import dataclass
from typing import Final

_NS_PER_US: Final = 1000


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Monotonic nanoseconds: when the guest stopped, and when each part ended."""

    stopped: int
    paused: int
    last_round: int
    device_state: int
    verified: int
    handed_off: int
    resumed: int


@dataclass(frozen=True, slots=True)
class Downtime:
    """The standstill's parts in microseconds."""

    pause_us: int
    last_round_us: int
    device_state_us: int
    verify_us: int
    handoff_us: int
    resume_us: int
    uncertainty_us: int
    """The share of `resume_us` that may be one-way delay; not a part of the sum, and 0 where the clock is shared."""
    shared_clock: bool

    @property
    def downtime_us(self) -> int:
        """The whole standstill."""
        return sum(self.parts_us)

    @property
    def parts_us(self) -> tuple[int, int, int, int, int, int]:
        """The six parts, in their order."""
        return (
            self.pause_us,
            self.last_round_us,
            self.device_state_us,
            self.verify_us,
            self.handoff_us,
            self.resume_us,
        )


def downtime(boundaries: Boundaries, *, shared_clock: bool, destination_ns: int = 0) -> Downtime:
    """Return the parts of a standstill.

    Args:
        boundaries: When each part ended. One before an earlier one ends that part with the earlier; one after the
            guest resumed, with the resumption.
        shared_clock: Whether `boundaries.resumed` is the destination's own time on a clock that both ends share.
        destination_ns: How long the destination itself was busy between the secret's departure and its answer, by
            its own clock; the rest of that span is delay, and one way of it is counted as downtime.
    """
    end = max(boundaries.resumed, boundaries.stopped)
    reached = 0
    parts: list[int] = []
    for boundary in (
        boundaries.paused,
        boundaries.last_round,
        boundaries.device_state,
        boundaries.verified,
        boundaries.handed_off,
        end,
    ):
        at = max(reached, (min(boundary, end) - boundaries.stopped) // _NS_PER_US)
        parts.append(at - reached)
        reached = at
    pause_us, last_round_us, device_state_us, verify_us, handoff_us, resume_us = parts
    delay_us = 0 if shared_clock else max(0, resume_us - destination_ns // _NS_PER_US)
    return Downtime(
        pause_us=pause_us,
        last_round_us=last_round_us,
        device_state_us=device_state_us,
        verify_us=verify_us,
        handoff_us=handoff_us,
        resume_us=resume_us,
        uncertainty_us=delay_us,
        shared_clock=shared_clock,
    )
