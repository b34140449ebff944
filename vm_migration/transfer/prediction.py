"""What an attempt will take, as a range: the forecast at the likely figures, within bounds for all the others.

Link, data, dirtying and fixed times are known only within ranges. The rounds are therefore followed twice at once, as
bounds: what a round sends, how long it takes and what it leaves lie between the two. Where only some of what lies
between would stop the guest, it both stops and goes on; the bounds of the attempt are those of every way in which it
may end. So no forecast (vm_migration.transfer.forecast) from figures within the given ranges lies outside, and wider
ranges give wider bounds.

What is left as a share of what was sent is greatest for the least that was sent, over the slowest link, because
dirtying is concave; that is what tells whether a round may gain nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vm_migration.transfer.convergence import (
    SHRINKS_BY,
    ConvergencePolicy,
    StandstillCosts,
    fits_limit,
    is_little,
    shrinks,
)
from vm_migration.transfer.dirtying import Dirtying, Growth
from vm_migration.transfer.forecast import MIN_RATE, Forecast, Workload, expected, left_after
from vm_migration.transfer.ranges import Range
from vmm.memory.quantities import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is known before the start; bytes, bytes a second, milliseconds."""

    data_bytes: Range
    """RAM that holds data; what was never touched, or is zero, costs nothing."""
    dirtying: Dirtying
    link_bytes_per_s: Range
    prepare_ms: Range
    around_ms: Range
    """Opening streams, journals, hooks: what an attempt takes beside Prepare, its rounds and the standstill."""
    fixed_ms: Range
    """What a standstill takes beside its work; decisions are made with the fixed part of the costs all the same."""
    round_ms: Range
    """What each round takes beside moving what it moves: harvesting, announcing it, and what goes to and fro."""
    always_dirty_bytes: int = 0
    unhashed_bytes: int = 0
    cpu_share: float = 1.0
    """Of what is dirtied, what only vCPUs wrote."""

    def workload(self, data_bytes: float, growth: Growth) -> Workload:
        """Return what a forecast is made of, for one of the possible sizes and loads."""
        return Workload(
            data_bytes=round(data_bytes),
            dirty_bytes_per_s=self.dirtying.bytes_per_s,
            dirty_span_bytes=round(growth.span_bytes),
            always_dirty_bytes=self.always_dirty_bytes,
            unhashed_bytes=self.unhashed_bytes,
            pages_wait=True,
            growth=growth,
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """What an attempt is expected to take, and within which bounds; `rounds` counts the last one."""

    rounds: Range
    total_ms: Range
    downtime_ms: Range
    prepare_ms: float
    converges: bool
    """Whether the downtime limit is reached within the timeout, at the likely figures."""
    surely: bool
    """Whether it is at all the others, too."""
    possibly: bool
    """Whether it is at any."""


@dataclass(frozen=True, slots=True)
class _End:
    """One way in which an attempt may end: bounds of when the guest is stopped, and for how long."""

    rounds: int
    stopped_ms: tuple[float, float]
    standstill_ms: tuple[float, float]
    converges: bool


def predicted(inputs: Inputs, policy: ConvergencePolicy, costs: StandstillCosts) -> Prediction:
    """Return what an attempt will take under a policy; `costs` are those with which it is decided when to stop."""
    likely = likely_forecast(inputs, policy, costs)
    ends = list(_ends(inputs, policy, costs))
    beside = (inputs.fixed_ms.low - costs.fixed_ms, inputs.fixed_ms.high - costs.fixed_ms)
    standing = [
        (max(0.0, end.standstill_ms[0] + beside[0]), max(0.0, end.standstill_ms[1] + beside[1])) for end in ends
    ]
    totals = [
        (end.stopped_ms[0] + still[0], end.stopped_ms[1] + still[1]) for end, still in zip(ends, standing, strict=True)
    ]
    return Prediction(
        rounds=_spanning(likely.rounds, [(end.rounds, end.rounds) for end in ends]),
        total_ms=_spanning(likely.total_ms, totals),
        downtime_ms=_spanning(likely.downtime_ms, standing),
        prepare_ms=likely.prepare_ms,
        converges=likely.converges,
        surely=all(end.converges for end in ends),
        possibly=likely.converges or any(end.converges for end in ends),
    )


def likely_forecast(inputs: Inputs, policy: ConvergencePolicy, costs: StandstillCosts) -> Forecast:
    """Return the forecast at the likely figures."""
    found = expected(
        inputs.workload(inputs.data_bytes.likely, inputs.dirtying.likely),
        inputs.link_bytes_per_s.likely,
        inputs.prepare_ms.likely + inputs.around_ms.likely,
        policy,
        costs,
        round_ms=inputs.round_ms.likely,
    )
    downtime_ms = max(0.0, found.downtime_ms + inputs.fixed_ms.likely - costs.fixed_ms)
    return replace(
        found,
        prepare_ms=inputs.prepare_ms.likely,
        total_ms=found.total_ms - found.downtime_ms + downtime_ms,
        downtime_ms=downtime_ms,
    )


def _spanning(likely: float, bounds: list[tuple[float, float]]) -> Range:
    """Return the range of all bounds; the likely figure lies within, but for the last bits of a sum."""
    low, high = min(each[0] for each in bounds), max(each[1] for each in bounds)
    return Range(min(low, likely), likely, max(high, likely))


def _ends(inputs: Inputs, policy: ConvergencePolicy, costs: StandstillCosts) -> Iterator[_End]:
    """Yield every way in which the attempt may end, after one round, two, and so on."""
    slow, fast = max(inputs.link_bytes_per_s.low, MIN_RATE), max(inputs.link_bytes_per_s.high, MIN_RATE)
    light = inputs.workload(inputs.data_bytes.low, inputs.dirtying.low)
    heavy = inputs.workload(inputs.data_bytes.high, inputs.dirtying.high)
    limit, unhashed = policy.downtime_limit_ms, inputs.unhashed_bytes
    least, most = (float(max(each.data_bytes, each.always_dirty_bytes)) for each in (light, heavy))
    early = inputs.prepare_ms.low + inputs.around_ms.low
    late = inputs.prepare_ms.high + inputs.around_ms.high
    rounds, shortest, longest = 1, 0.0, 0.0
    while True:  # ends: each further round's upper bound is smaller by a fifth, and less than a page is nothing
        if rounds == 1:
            shortest, longest = heavy.first_ms(least, fast), light.first_ms(most, slow)
        else:  # what is clean lies between the least that was written less the most since, and the reverse
            shortest = light.later_ms(least, shortest, fast, since=heavy)
            longest = heavy.later_ms(most, longest, slow, since=light)
        shortest += inputs.round_ms.low
        longest += inputs.round_ms.high
        early += shortest
        late += longest
        left = (left_after(light, shortest), left_after(heavy, longest))
        best = costs.standstill_ms(left[0], unhashed, fast)
        worst = costs.standstill_ms(left[1], unhashed, slow)
        # The share that is left: at worst of the least that is sent, none of which waits; at best of the most, of
        # which half does.
        most_ms, least_ms = least * 1000 / slow + inputs.round_ms.high, most * 500 / fast + inputs.round_ms.low
        surely_shrinks = left[0] > 0 and shrinks(least, left_after(heavy, most_ms))
        fewer = most * (1 - SHRINKS_BY)  # another round has no more, and a page at least, or nothing ends this
        may_shrink = left[1] > 0 and fewer >= PAGE_SIZE and left_after(light, least_ms) <= fewer
        floors = (costs.standstill_ms(0, unhashed, fast), costs.standstill_ms(0, unhashed, slow))
        may_be_little = is_little(best - floors[0], floors[1])
        surely_little = is_little(worst - floors[1], floors[0])
        if fits_limit(best, limit) and (may_be_little or not surely_shrinks):
            yield _End(rounds + 1, (early, late), (best, min(worst, limit)), converges=True)
        if (not surely_shrinks and not fits_limit(worst, limit)) or late >= policy.timeout_ms:
            yield _End(rounds + 1, (early, late), (best, worst), converges=False)
        if not may_shrink or (surely_little and fits_limit(worst, limit)) or early >= policy.timeout_ms:
            return
        least, most = left[0], min(left[1], fewer)
        rounds += 1
