"""What an attempt will take, before anything starts: from sizes and rates alone.

Round 0 sends the bytes that hold data; each round dirties what guest and devices write in its time (`dirty rate x its
time` up to what they reach, or the growth that was measured: vm_migration.transfer.dirtying), and that is the next
round. Pages that are dirty again before their turn take no time where they wait (vm_migration.transfer.round_time). The
forecast stops where `convergence.decide` would: both ask `is_time`. A container whose tracker reports every
mapped page dirty, always (type1, semantics 3.3), never gets below its mapped size: no round helps, and the standstill
is computed from that size.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from vm_migration.transfer.convergence import ConvergencePolicy, StandstillCosts, fits_limit, is_time, shrinks
from vm_migration.transfer.dirtying import Growth
from vm_migration.transfer.round_time import round_ms
from vmm.memory.quantities import PAGE_SIZE

_LIMIT_MARGIN: Final = 1.25
_LIMIT_STEP_MS: Final = 50
MIN_RATE: Final = 1.0
_LAUNCH_MS: Final = 500.0
"""Until a machine's processes are there."""
_PREPARE_MS_PER_GIB: Final = 2600.0
"""First touch of the destination's memory, about 10 us a page on nested hosts."""
PREPARE_SPREAD: Final = 0.3
"""By what share of itself a destination's time to prepare may be off."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is to be moved, and how fast it changes; bytes, and bytes per second."""

    data_bytes: int
    """RAM that holds data; what was never touched, or is zero, costs nothing."""
    dirty_bytes_per_s: float
    dirty_span_bytes: int
    """The most that guest and devices dirty however long a round takes: working set and buffers."""
    always_dirty_bytes: int = 0
    """Mapped bytes of containers whose tracker reports everything dirty for ever."""
    unhashed_bytes: int = 0
    """What must be hashed at the pause beside what is sent; see StandstillCosts."""
    pages_wait: bool = False
    """Whether pages that are dirty again before their turn are left for a later round."""
    growth: Growth | None = None
    """How what is dirty grows, where that was measured; else at the rate up to the span."""

    def written_after(self, ms: float) -> float:
        """Return the distinct bytes that are written in so many milliseconds, beside what is always dirty."""
        if self.growth is not None:
            return self.growth.after(ms)
        return min(self.dirty_bytes_per_s * ms / 1000, self.dirty_span_bytes)

    def first_ms(self, announced_bytes: float, rate_bytes_per_s: float) -> float:
        """Return how long the first round takes, which announces so many bytes."""
        span = float(self.dirty_span_bytes if self.growth is None else self.growth.span_bytes)
        if not self.pages_wait or span <= 0:
            return announced_bytes * 1000 / rate_bytes_per_s
        late = min(announced_bytes, span)
        return round_ms(announced_bytes, late, lambda ms: late * (1 - self.written_after(ms) / span), rate_bytes_per_s)

    def later_ms(
        self, announced_bytes: float, before_ms: float, rate_bytes_per_s: float, since: "Workload | None" = None
    ) -> float:
        """Return how long a round takes that announces what was written in the one before, which took so long.

        `since` is the load while it runs, where that is another one.
        """
        if not self.pages_wait:
            return announced_bytes * 1000 / rate_bytes_per_s
        during = since or self

        def clean(ms: float) -> float:
            return self.written_after(before_ms + ms) - during.written_after(ms)

        return round_ms(announced_bytes, announced_bytes, clean, rate_bytes_per_s)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What an attempt is expected to take; `rounds` counts the last one, with the guest stopped."""

    rounds: int
    prepare_ms: float
    total_ms: float
    downtime_ms: float
    converges: bool
    """Whether the downtime limit is reached within the timeout."""


@dataclass(frozen=True, slots=True)
class PerpetualStandstill:
    """The standstill that no round can shorten, and what takes most of it."""

    standstill_ms: float
    fits: bool
    limit_needed_ms: int
    """The smallest sensible downtime limit under which the machine could move."""
    cause: str

    def told_as(self, standstill_ms: float) -> "PerpetualStandstill":
        """Return it with the standstill that is expected, where another one was decided with; whether it fits stays."""
        needed_ms = max(self.limit_needed_ms, _limit_for(standstill_ms))
        return replace(self, standstill_ms=standstill_ms, limit_needed_ms=needed_ms)

    @property
    def message(self) -> str:
        """What to tell the user under the code `standstill-over-limit`."""
        return (
            f"Machine would stand still for about {self.standstill_ms:.0f} ms, because {self.cause}; "
            f"a downtime limit of {self.limit_needed_ms} ms would be needed"
        )


def prepare_ms_expected(ram_bytes: int) -> float:
    """Return how long a destination takes to make a machine's memory its own, before the first page is sent."""
    return _LAUNCH_MS + ram_bytes / (1 << 30) * _PREPARE_MS_PER_GIB


def standstill_expected(
    workload: Workload, rate_bytes_per_s: float, limit_ms: float, costs: StandstillCosts
) -> PerpetualStandstill:
    """Return the standstill that no round can shorten: what is always dirty, and what the guest adds in a moment.

    The decision of `convergence.decide` fits when this does. Without perpetual trackers it fits unless what is fixed
    (device state, hashing without a witness) alone is over the limit.
    """
    rate = max(rate_bytes_per_s, MIN_RATE)
    standstill_ms = costs.standstill_ms(workload.always_dirty_bytes, workload.unhashed_bytes, rate)
    fits = fits_limit(standstill_ms, limit_ms)
    return PerpetualStandstill(standstill_ms, fits, _limit_for(standstill_ms), _cause(workload, rate, costs))


def _limit_for(standstill_ms: float) -> int:
    return math.ceil(standstill_ms * _LIMIT_MARGIN / _LIMIT_STEP_MS) * _LIMIT_STEP_MS


def _cause(workload: Workload, rate: float, costs: StandstillCosts) -> str:
    """Name what takes most of a standstill."""
    parts = {
        "the tracker of a container reports all mapped memory dirty for ever": workload.always_dirty_bytes / rate,
        f"{costs.device_state_bytes} bytes of the devices' state can only be read while it does": (
            costs.device_state_bytes / rate
        ),
        "all memory must be hashed while it does": workload.unhashed_bytes / costs.hash_bytes_per_s,
    }
    return max(parts, key=lambda cause: parts[cause])


def expected(
    workload: Workload,
    rate_bytes_per_s: float,
    prepare_ms: float,
    policy: ConvergencePolicy,
    costs: StandstillCosts,
    *,
    round_ms: float = 0.0,
) -> Forecast:
    """Return how many rounds, how long in all and how long stopped, at a constant link and dirty rate.

    `round_ms` is what each round takes however little it moves: the guest writes on meanwhile.
    """
    rate = max(rate_bytes_per_s, MIN_RATE)
    elapsed_ms = prepare_ms
    sent = float(max(workload.data_bytes, workload.always_dirty_bytes))
    rounds, took_ms = 1, 0.0
    while True:  # ends: each further round is shorter by a fifth, and less than a page is nothing
        took_ms = workload.later_ms(sent, took_ms, rate) if rounds > 1 else workload.first_ms(sent, rate)
        took_ms += round_ms
        elapsed_ms += took_ms
        left = left_after(workload, took_ms)
        standstill_ms = costs.standstill_ms(left, workload.unhashed_bytes, rate)
        floor_ms = costs.standstill_ms(0, workload.unhashed_bytes, rate)
        shrinking = shrinks(sent, left)
        if is_time(standstill_ms, floor_ms, policy.downtime_limit_ms, shrinking=shrinking):
            return Forecast(rounds + 1, prepare_ms, elapsed_ms + standstill_ms, standstill_ms, converges=True)
        if not shrinking or elapsed_ms >= policy.timeout_ms:
            return Forecast(rounds + 1, prepare_ms, elapsed_ms + standstill_ms, standstill_ms, converges=False)
        sent = left
        rounds += 1


def left_after(workload: Workload, ms: float) -> float:
    """Return the bytes that are dirty after a round of so many milliseconds; less than a page is nothing."""
    written = workload.written_after(ms)
    left = max(workload.always_dirty_bytes, min(written + workload.always_dirty_bytes, workload.data_bytes))
    return left if left >= PAGE_SIZE else 0.0
