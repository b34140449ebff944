"""The range of an attempt: whatever the figures turn out to be within theirs, the forecast lies within it."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vm_migration.transfer.convergence import ConvergencePolicy, StandstillCosts
from vm_migration.transfer.dirtying import Dirtying, Growth
from vm_migration.transfer.forecast import expected
from vm_migration.transfer.prediction import Inputs, Prediction, predicted
from vm_migration.transfer.ranges import Range

MIB = 1 << 20
GIB = 1 << 30
POLICY = ConvergencePolicy(downtime_limit_ms=300, timeout_ms=600_000)
COSTS = StandstillCosts(fixed_ms=50, device_state_bytes=4096, hash_bytes_per_s=2e9)


def load(bytes_per_s: float, span: float, spread: float) -> Dirtying:
    likely = Growth.steady(bytes_per_s, span)
    return Dirtying(likely.scaled(1 - spread), likely, likely.scaled(1 + spread), bytes_per_s)


def inputs(
    *,
    data: float = GIB,
    dirty: float = 60 * MIB,
    span: float = 200 * MIB,
    link: float = 1e9,
    spread: float = 0.1,
    round_ms: float = 0.0,
) -> Inputs:
    """Return what is known of a machine, each figure known to within the same share."""
    return Inputs(
        data_bytes=Range.around(round(data), spread),
        dirtying=load(dirty, span, spread),
        link_bytes_per_s=Range.around(link, spread),
        prepare_ms=Range.around(1000, spread),
        around_ms=Range.around(100, spread),
        fixed_ms=Range.around(50, spread),
        round_ms=Range.around(round_ms, spread),
    )


def within(inner: Prediction, outer: Prediction) -> bool:
    pairs = ((inner.total_ms, outer.total_ms), (inner.downtime_ms, outer.downtime_ms), (inner.rounds, outer.rounds))
    return all(wide.low <= narrow.low * (1 + 1e-9) and narrow.high <= wide.high * (1 + 1e-9) for narrow, wide in pairs)


sizes = st.floats(0, 1 << 36)
loads = st.builds(
    inputs,
    data=sizes,
    dirty=st.floats(0, 2e9),
    span=sizes,
    link=st.floats(1e6, 1e10),
    spread=st.floats(0, 0.9),
    round_ms=st.floats(0, 200),
)
shares = st.floats(0, 1)


def test_a_calm_machine_is_predicted_closely() -> None:
    found = predicted(inputs(dirty=0), POLICY, COSTS)
    assert (found.converges, found.surely, found.rounds) == (True, True, Range.exactly(2))
    assert found.total_ms.likely == pytest.approx(1000 + 100 + GIB / 1e6 + 50, rel=0.01)
    assert found.total_ms.high < 1.3 * found.total_ms.likely


def test_without_doubt_there_is_one_way_to_go() -> None:
    found = predicted(inputs(spread=0.0), POLICY, COSTS)
    for figure in (found.total_ms, found.downtime_ms, found.rounds):
        assert figure.high == pytest.approx(figure.low)


def test_a_machine_that_may_or_may_not_converge_is_said_to() -> None:
    sure = inputs(data=4 * GIB, dirty=600e6, span=4 * GIB, link=1e9, spread=0.05)
    assert predicted(sure, POLICY, COSTS).surely
    doubtful = inputs(data=4 * GIB, dirty=750e6, span=4 * GIB, link=1e9, spread=0.2)
    found = predicted(doubtful, POLICY, COSTS)
    assert (found.converges, found.surely) == (True, False)
    assert found.downtime_ms.high > POLICY.downtime_limit_ms
    hopeless = predicted(inputs(data=4 * GIB, dirty=2e9, span=4 * GIB, link=1e9), POLICY, COSTS)
    assert (hopeless.converges, hopeless.surely) == (False, False)


def test_a_perpetual_tracker_never_converges_under_a_small_limit() -> None:
    found = predicted(replace(inputs(), always_dirty_bytes=GIB), POLICY, COSTS)
    assert not found.converges
    assert found.downtime_ms.low > 900


def test_what_a_standstill_took_before_is_what_it_will_take() -> None:
    quick = replace(inputs(dirty=0), fixed_ms=Range(10, 20, 30))
    assert predicted(quick, POLICY, COSTS).downtime_ms.likely == pytest.approx(20, abs=1)


def test_what_a_round_takes_beside_its_pages_lets_the_guest_write_more() -> None:
    quick = predicted(inputs(spread=0.0), POLICY, COSTS)
    slow = predicted(inputs(spread=0.0, round_ms=50.0), POLICY, COSTS)
    assert slow.rounds.likely >= quick.rounds.likely
    assert slow.total_ms.likely >= quick.total_ms.likely + 50 * (quick.rounds.likely - 1)


@given(loads, st.floats(0, 1), st.floats(0, 1000))
@settings(max_examples=100)
def test_rounds_that_always_leave_something_are_followed_as_far_as_pages_can_become_fewer(
    known: Inputs, low: float, high: float
) -> None:
    """A round is never shorter than what it takes beside its pages: nothing but their number ends what is followed."""
    doubtful = replace(known.dirtying, low=Growth.steady(0.0, 0.0))
    known = replace(known, dirtying=doubtful, round_ms=Range(low, low, low + high))
    found = predicted(known, replace(POLICY, timeout_ms=10**12), COSTS)
    assert found.rounds.high < 100


@given(loads)
@settings(max_examples=150)
def test_the_range_contains_what_is_likely(known: Inputs) -> None:
    found = predicted(known, POLICY, COSTS)
    for figure in (found.total_ms, found.downtime_ms, found.rounds):
        assert figure.low <= figure.likely <= figure.high
    if found.surely:
        assert found.converges
        assert found.downtime_ms.high <= POLICY.downtime_limit_ms + known.fixed_ms.high - COSTS.fixed_ms + 1e-6


@given(loads, shares, shares, shares, shares)
@settings(max_examples=200)
def test_no_forecast_from_figures_within_the_ranges_lies_outside(
    known: Inputs, size: float, speed: float, heaviness: float, ceremony: float
) -> None:
    found = predicted(known, POLICY, COSTS)
    data, link = between(known.data_bytes, size), between(known.link_bytes_per_s, speed)
    spread = known.data_bytes.high / known.data_bytes.likely - 1 if known.data_bytes.likely else 0.0
    growth = known.dirtying.likely.scaled(1 - spread + 2 * spread * heaviness)
    round_ms = between(known.round_ms, ceremony)
    one = expected(known.workload(data, growth), link, 1100, POLICY, COSTS, round_ms=round_ms)
    slack = 1 + 1e-9
    assert found.rounds.low <= one.rounds <= found.rounds.high
    assert found.downtime_ms.low <= one.downtime_ms * slack + 1e-3
    assert one.downtime_ms <= found.downtime_ms.high * slack + 1e-3
    assert found.total_ms.low <= one.total_ms * slack + 1e-3
    assert one.total_ms <= found.total_ms.high * slack + 1e-3


@given(loads, st.floats(0, 1))
@settings(max_examples=150)
def test_who_knows_less_says_a_wider_range(known: Inputs, less: float) -> None:
    wider = replace(
        known,
        data_bytes=widened(known.data_bytes, less),
        link_bytes_per_s=widened(known.link_bytes_per_s, less),
        prepare_ms=widened(known.prepare_ms, less),
        fixed_ms=widened(known.fixed_ms, less),
        round_ms=widened(known.round_ms, less),
        dirtying=replace(
            known.dirtying,
            low=known.dirtying.low.scaled(1 - less),
            high=known.dirtying.high.scaled(1 + less),
        ),
    )
    assert within(predicted(known, POLICY, COSTS), predicted(wider, POLICY, COSTS))


@given(loads, st.floats(1, 4))
@settings(max_examples=150)
def test_more_to_move_takes_no_less_where_as_many_rounds_do_it(known: Inputs, larger: float) -> None:
    known = replace(known, dirtying=load(known.dirtying.bytes_per_s, known.dirtying.likely.span_bytes, 0.0))
    more = replace(known, data_bytes=Range.exactly(known.data_bytes.likely * larger))
    less, much = predicted(known, POLICY, COSTS), predicted(more, POLICY, COSTS)
    assume(less.rounds.likely == much.rounds.likely)
    assert less.total_ms.likely <= much.total_ms.likely * (1 + 1e-9)
    assert less.downtime_ms.likely <= much.downtime_ms.likely * (1 + 1e-9)


def between(bounds: Range, share: float) -> float:
    return bounds.low + share * (bounds.high - bounds.low)


def widened(bounds: Range, by: float) -> Range:
    return Range(bounds.low * (1 - by), bounds.likely, bounds.high * (1 + by))
