"""What is taken from vCPUs is taken from their clock, in slices, and given back by itself."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.guest.pacing import SECOND
from vmm.guest.vcpu_clock import MOST_PERCENT, SLICE_NS, VcpuClock

BEGINS = 7 * SECOND
percents = st.integers(1, MOST_PERCENT)
moments = st.integers(BEGINS, BEGINS + 30 * SECOND)


def throttled(percent: int, until: int = BEGINS + 3600 * SECOND) -> VcpuClock:
    clock = VcpuClock()
    clock.throttle(percent, BEGINS, until)
    return clock


@given(moments)
def test_vcpus_that_nobody_throttles_have_the_hosts_time(now: int) -> None:
    clock = VcpuClock()
    assert (clock.time(now), clock.runs_at(now), clock.moment_of(now), clock.percent(now)) == (now, now, now, 0)


@given(percents, st.integers(1, 200))
def test_of_each_period_the_share_asked_for_is_taken_and_ten_milliseconds_are_kept(percent: int, periods: int) -> None:
    clock = throttled(percent)
    period = SLICE_NS * 100 // (100 - percent)
    assert clock.time(BEGINS + periods * period) - clock.time(BEGINS) == periods * SLICE_NS
    assert abs(100 - 100 * SLICE_NS / period - percent) < 1e-4


@given(percents, st.lists(moments, min_size=2, max_size=40), st.integers(0, 20 * SECOND))
def test_the_vcpus_time_never_goes_back_and_never_faster_than_the_hosts(
    percent: int, asked: list[int], lasts: int
) -> None:
    clock = throttled(percent, BEGINS + lasts)
    asked.sort()
    for before, after in itertools.pairwise(asked):
        assert 0 <= clock.time(after) - clock.time(before) <= after - before


@settings(max_examples=300)
@given(percents, moments, st.integers(0, 5 * SECOND), st.integers(0, 20 * SECOND))
def test_the_moment_of_a_time_is_the_first_at_which_vcpus_run_and_have_it(
    percent: int, now: int, ahead: int, lasts: int
) -> None:
    clock = throttled(percent, BEGINS + lasts)
    wanted = clock.time(now) + ahead
    moment = clock.moment_of(wanted)
    assert clock.time(moment) >= wanted
    assert clock.runs_at(moment) == moment
    earlier = moment - 1
    assert clock.time(earlier) < wanted or clock.runs_at(earlier) > earlier


@given(percents, st.integers(1, 20 * SECOND), st.integers(0, 20 * SECOND))
def test_a_throttle_that_nobody_asks_for_again_ends_by_itself(percent: int, lasts: int, later: int) -> None:
    ends = BEGINS + lasts
    clock = throttled(percent, ends)
    assert clock.percent(ends - 1) == percent
    assert clock.percent(ends) == 0
    assert clock.runs_at(ends + later) == ends + later
    assert clock.time(ends + later) - clock.time(ends) == later


@given(percents, st.lists(st.integers(0, SECOND), max_size=20))
def test_asking_again_changes_no_slice(percent: int, gaps: list[int]) -> None:
    once, again, now = throttled(percent), throttled(percent, BEGINS + 2 * SECOND), BEGINS
    for gap in gaps:
        now += gap
        again.throttle(percent, now, now + 2 * SECOND)
        assert again.time(now) == once.time(now)
        assert again.runs_at(now) == once.runs_at(now)


@given(percents, percents, moments)
def test_another_share_goes_on_from_the_time_that_vcpus_have(first: int, second: int, now: int) -> None:
    clock = throttled(first)
    had = clock.time(now)
    clock.throttle(second, now, now + SECOND)
    assert clock.time(now) == had
    assert clock.percent(now) == second


@given(percents, st.integers(0, 5 * SECOND), st.integers(0, 5 * SECOND))
def test_what_is_lifted_after_it_ended_is_not_lengthened(percent: int, lasts: int, later: int) -> None:
    clock = throttled(percent, BEGINS + lasts)
    now = BEGINS + lasts + later
    had = clock.time(now)
    clock.throttle(0, now, now)
    assert clock.time(now) == had
    assert clock.time(now + SECOND) == had + SECOND
