import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.convergence import (
    MARGIN,
    Continue,
    ConvergencePolicy,
    Decision,
    Fail,
    OnTimeout,
    RoundMeasurement,
    Situation,
    StandstillCosts,
    SwitchOver,
    decide,
    rate_dropped,
    trusted_rate,
)
from vm_migration.transfer.forecast import Workload, expected, standstill_expected

MIB = 1 << 20
GIB = 1 << 30
RATE = 1000 * MIB
COSTS = StandstillCosts(fixed_ms=20, device_state_bytes=4096, hash_bytes_per_s=8 * GIB)
POLICY = ConvergencePolicy(downtime_limit_ms=300, timeout_ms=600_000)


def measured(number: int, sent_mib: float, left_mib: float, rate: float = RATE) -> RoundMeasurement:
    sent = int(sent_mib * 256)
    return RoundMeasurement(
        round=number,
        dirty_pages=sent,
        sent_pages=sent,
        zero_pages=0,
        wire_bytes=sent * 4096,
        ms=sent * 4096 * 1000 / rate,
        dirtied_pages=int(left_mib * 256),
    )


def decided(*history: RoundMeasurement, policy: ConvergencePolicy = POLICY, unhashed: int = 0) -> Decision:
    return decide(Situation(history, unhashed_bytes=unhashed, elapsed_ms=1000), policy, COSTS)


def test_nothing_is_decided_before_a_round_is_closed() -> None:
    assert decided() == Continue(math.inf)


def test_what_fits_with_few_pages_left_is_moved_at_once() -> None:
    decision = decided(measured(0, 1024, 9))
    assert isinstance(decision, SwitchOver)
    assert decision.standstill_ms == pytest.approx(29, abs=1)
    assert not decision.forced


def test_while_the_remainder_shrinks_a_shorter_standstill_is_waited_for() -> None:
    assert isinstance(decided(measured(0, 1024, 250)), Continue)
    assert isinstance(decided(measured(0, 1024, 100)), Continue)
    assert isinstance(decided(measured(0, 1024, 250), measured(1, 250, 240)), SwitchOver)


def test_where_pages_are_little_of_a_standstill_no_shorter_one_is_waited_for() -> None:
    state = StandstillCosts(fixed_ms=20, device_state_bytes=120 * MIB, hash_bytes_per_s=GIB)
    for left_mib, kind in ((60, SwitchOver), (90, Continue)):
        found = decide(Situation([measured(0, 1024, left_mib)], unhashed_bytes=0, elapsed_ms=0), POLICY, state)
        assert isinstance(found, kind)


def test_devices_state_takes_as_long_as_the_slower_of_reading_it_and_the_link() -> None:
    costs = StandstillCosts(0, device_state_bytes=32 * MIB, hash_bytes_per_s=GIB, device_bytes_per_s=320 * MIB)
    assert costs.standstill_ms(0, 0, RATE) == pytest.approx(100)
    assert costs.standstill_ms(10 * MIB, 0, RATE) == pytest.approx(110)
    assert costs.standstill_ms(0, 0, 32 * MIB) == pytest.approx(1000)


def test_what_does_not_fit_is_not_moved_however_it_shrinks() -> None:
    assert isinstance(decided(measured(0, 1024, 400), measured(1, 400, 400)), Continue)


def test_an_idle_guest_moves_though_its_fixed_costs_are_over_half_the_limit() -> None:
    slow = StandstillCosts(fixed_ms=200, device_state_bytes=0, hash_bytes_per_s=GIB)
    decision = decide(Situation([measured(0, 1024, 0)], unhashed_bytes=0, elapsed_ms=0), POLICY, slow)
    assert decision == SwitchOver(200)


def test_what_must_be_hashed_at_the_pause_counts() -> None:
    assert isinstance(decided(measured(0, 1024, 9)), SwitchOver)
    assert isinstance(decided(measured(0, 1024, 9), unhashed=4 * GIB), Continue)


def test_a_drop_of_the_rate_does_not_stop_the_guest() -> None:
    steady = [measured(0, 1024, 250), measured(1, 250, 120, rate=RATE), measured(2, 120, 110)]
    assert isinstance(decided(*steady), SwitchOver)
    slower = [measured(0, 1024, 250), measured(1, 60, 60, rate=RATE / 4)]
    assert rate_dropped(slower)
    assert trusted_rate(slower) == pytest.approx(RATE / 4)
    assert isinstance(decided(*slower), Continue)


def test_a_lasting_drop_becomes_the_rate() -> None:
    history = [measured(0, 1024, 250)] + [measured(number, 60, 60, rate=RATE / 4) for number in (1, 2, 3)]
    assert not rate_dropped(history)
    assert isinstance(decided(*history), SwitchOver)


def test_a_burst_of_the_rate_is_not_trusted() -> None:
    history = [measured(0, 1024, 400), measured(1, 400, 400), measured(2, 400, 400, rate=10 * RATE)]
    assert trusted_rate(history) == pytest.approx(RATE)
    assert isinstance(decided(*history), Continue)


def test_rounds_too_small_to_measure_the_link_are_left_out() -> None:
    history = [measured(0, 1024, 0.1), measured(1, 0.1, 0.1, rate=RATE / 1000)]
    assert trusted_rate(history) == pytest.approx(RATE)


def test_a_link_that_stood_still_once_is_trusted_again_when_small_rounds_are_fast() -> None:
    """An idle guest's rounds are all too small to measure; its attempt ran until its time was over."""
    hiccup = [measured(0, 1024, 1), measured(1, 1, 0.1, rate=RATE / 10_000)]
    assert isinstance(decided(*hiccup), Continue)
    small = [measured(number, 0.1, 0.1) for number in range(2, 50)]
    assert isinstance(decided(*hiccup, *small[:10]), Continue)
    assert trusted_rate([*hiccup, *small]) == pytest.approx(RATE)
    assert isinstance(decided(*hiccup, *small), SwitchOver)


def test_cancel_comes_before_force_and_force_before_time() -> None:
    late = Situation([measured(0, 1024, 800)], unhashed_bytes=0, elapsed_ms=600_000)
    assert isinstance(decide(late, POLICY, COSTS), Fail)
    failed = decide(late, POLICY, COSTS)
    assert isinstance(failed, Fail)
    assert failed.code == "timeout"
    assert "limit 300 ms" in failed.message
    forcing = ConvergencePolicy(300, 600_000, OnTimeout.FORCE)
    forced = decide(late, forcing, COSTS)
    assert isinstance(forced, SwitchOver)
    assert forced.forced
    for cancelled, code in ((True, Fail), (False, SwitchOver)):
        asked = Situation(late.history, unhashed_bytes=0, elapsed_ms=0, forced=True, cancelled=cancelled)
        assert isinstance(decide(asked, POLICY, COSTS), code)


def waiting(*, elapsed_ms: float = 1000, forced: bool = False, policy: ConvergencePolicy = POLICY) -> Decision:
    """Decide for a machine that could be moved at once, but for one device's initial data."""
    asked = Situation(
        [measured(0, 1024, 1)], unhashed_bytes=0, elapsed_ms=elapsed_ms, forced=forced, unacknowledged=("nic0",)
    )
    return decide(asked, policy, COSTS)


def test_nothing_switches_over_before_every_devices_initial_data_is_acknowledged() -> None:
    assert isinstance(waiting(), Continue)
    assert isinstance(waiting(forced=True), Continue)
    for on_timeout in OnTimeout:
        late = waiting(elapsed_ms=600_000, policy=ConvergencePolicy(300, 600_000, on_timeout))
        assert isinstance(late, Fail)
        assert "nic0" in late.message


def test_device_state_that_only_a_stop_lets_move_counts_as_standstill() -> None:
    history = [measured(0, 1024, 1)]
    for device_mib, kind in ((1, SwitchOver), (512, Continue)):
        costs = StandstillCosts(fixed_ms=20, device_state_bytes=device_mib * MIB, hash_bytes_per_s=GIB)
        assert isinstance(decide(Situation(history, unhashed_bytes=0, elapsed_ms=0), POLICY, costs), kind)


@given(
    st.lists(st.builds(measured, st.just(0), st.floats(0, 2048), st.floats(0, 2048), st.floats(1, 1e10)), max_size=6),
    st.integers(0, 1 << 40),
)
@settings(max_examples=100)
def test_no_unforced_switchover_expects_more_than_fits_the_limit_with_its_margin(
    history: list[RoundMeasurement], unhashed: int
) -> None:
    decision = decided(*history, unhashed=unhashed)
    if isinstance(decision, SwitchOver):
        assert decision.standstill_ms * (1 + MARGIN) <= POLICY.downtime_limit_ms


@pytest.mark.parametrize(("left_mib", "kind"), [(245, SwitchOver), (260, Continue), (275, Continue)])
def test_what_fits_the_limit_by_less_than_its_margin_is_not_moved(left_mib: float, kind: type[Decision]) -> None:
    assert isinstance(decided(measured(0, 1024, left_mib), measured(1, left_mib, left_mib)), kind)


@given(st.floats(1, 2000), st.floats(0, 200), st.floats(0, 200))
def test_who_takes_less_beside_its_work_never_stops_later_where_nothing_shrinks(
    left_mib: float, one: float, other: float
) -> None:
    stops = [
        isinstance(
            decide(
                Situation([measured(0, left_mib, left_mib)], unhashed_bytes=0, elapsed_ms=0),
                POLICY,
                StandstillCosts(fixed_ms=fixed, device_state_bytes=0, hash_bytes_per_s=GIB),
            ),
            SwitchOver,
        )
        for fixed in sorted((one, other))
    ]
    assert stops[0] or not stops[1]


# Forecasts.


def workload(data: int, rate: float, span: int = GIB, always: int = 0, unhashed: int = 0) -> Workload:
    return Workload(data, rate, span, always_dirty_bytes=always, unhashed_bytes=unhashed)


def test_a_calm_machine_is_forecast_to_move_in_three_rounds() -> None:
    forecast = expected(workload(GIB, 90 * MIB), RATE, 500, POLICY, COSTS)
    assert forecast.converges
    assert forecast.rounds == 3
    assert forecast.downtime_ms == pytest.approx(20 + 1024 * 0.09**2, abs=1)
    assert forecast.total_ms == pytest.approx(500 + 1024 + 1024 * 0.09 + forecast.downtime_ms, abs=1)


def test_a_machine_that_dirties_faster_than_the_link_does_not_converge() -> None:
    forecast = expected(workload(4 * GIB, 2 * RATE, 4 * GIB), RATE, 0, POLICY, COSTS)
    assert not forecast.converges
    assert forecast.downtime_ms > 300


def test_a_small_working_set_converges_however_fast_it_is_written() -> None:
    assert expected(workload(4 * GIB, 2 * RATE, 64 * MIB), RATE, 0, POLICY, COSTS).converges


def test_a_perpetual_tracker_is_recognised_by_its_mapped_size() -> None:
    refused = standstill_expected(workload(GIB, 0, always=GIB), RATE, 300, COSTS)
    assert not refused.fits
    assert refused.standstill_ms == pytest.approx(20 + 1024, abs=1)
    assert refused.limit_needed_ms % 50 == 0
    assert refused.limit_needed_ms > refused.standstill_ms
    assert str(refused.limit_needed_ms) in refused.message
    assert not expected(workload(GIB, 0, always=GIB), RATE, 0, POLICY, COSTS).converges


@pytest.mark.parametrize(
    ("moved", "device_bytes", "cause"),
    [
        (workload(GIB, 0, always=GIB), 4096, "tracker"),
        (workload(GIB, 0), GIB, "devices' state"),
        (workload(GIB, 0, unhashed=64 * GIB), 4096, "hashed"),
    ],
)
def test_a_refusal_names_what_takes_the_time(moved: Workload, device_bytes: int, cause: str) -> None:
    costs = StandstillCosts(fixed_ms=20, device_state_bytes=device_bytes, hash_bytes_per_s=8 * GIB)
    refused = standstill_expected(moved, RATE, 300, costs)
    assert not refused.fits
    assert cause in refused.message


def test_the_limit_that_a_refusal_names_is_enough() -> None:
    busy = workload(GIB, 50 * MIB, 64 * MIB, always=512 * MIB)
    needed = standstill_expected(busy, RATE, 300, COSTS).limit_needed_ms
    assert standstill_expected(busy, RATE, needed, COSTS).fits
    assert expected(busy, RATE, 0, ConvergencePolicy(needed, 600_000), COSTS).converges


sizes = st.integers(0, 1 << 42)
rates = st.floats(0, 1e10)


@given(moved=st.builds(workload, sizes, rates, sizes, sizes), rate=rates, fixed=st.floats(0, 500))
@settings(max_examples=150)
def test_a_forecast_ends_and_keeps_its_word(moved: Workload, rate: float, fixed: float) -> None:
    costs = StandstillCosts(fixed, 4096, GIB)
    forecast = expected(moved, rate, 10, POLICY, costs)
    assert forecast.rounds >= 2
    assert forecast.total_ms >= forecast.downtime_ms
    if forecast.converges:
        assert forecast.downtime_ms <= POLICY.downtime_limit_ms
