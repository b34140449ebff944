from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.guest.pacing import NEVER, SECOND, Pacer, RateMeter


@settings(max_examples=60)
@given(st.integers(1, 10**9), st.lists(st.integers(0, 30_000_000), min_size=1, max_size=60))
def test_a_pacer_gives_its_rate_exactly_while_it_is_asked_often(rate: int, gaps: list[int]) -> None:
    pacer, now, spent = Pacer(rate), 10**15, 0
    assert pacer.due(now) == 0
    for gap in gaps:
        now += gap
        due = pacer.due(now)
        pacer.spend(due)
        spent += due
    assert spent == rate * sum(gaps) // SECOND


def test_a_process_that_stood_still_does_not_burst() -> None:
    pacer = Pacer(1000)
    pacer.due(0)
    assert pacer.due(60 * SECOND) == 50
    pacer.spend(50)
    assert pacer.due(60 * SECOND + 10_000_000) == 10


def test_another_clock_and_a_restart_give_nothing_away() -> None:
    pacer = Pacer(1000)
    pacer.due(5 * SECOND)
    assert pacer.due(1) == 0
    assert pacer.due(1 + 10_000_000) == 10
    pacer.restart()
    assert pacer.due(100 * SECOND) == 0


@settings(max_examples=60)
@given(st.integers(1, 10**9), st.integers(1, 10**6), st.integers(0, 10**6))
def test_the_moment_named_is_the_first_at_which_it_is_due(rate: int, units: int, debt: int) -> None:
    pacer = Pacer(rate)
    pacer.due(0)
    pacer.spend(debt)
    units = min(units, max(1, rate // 20))
    moment = pacer.moment_of(units)
    if moment > 0:
        assert pacer.due(moment - 1) < units or units == 0
    assert pacer.due(moment) >= units


def test_a_rate_of_zero_is_never_due() -> None:
    pacer = Pacer(0)
    assert pacer.due(SECOND) == 0
    assert pacer.moment_of(1) == NEVER


def test_rates_are_those_of_the_last_whole_second() -> None:
    meter = RateMeter()
    assert meter.rate(0) == 0
    assert not meter.advance(5)
    meter.count(10)
    assert meter.rate(5 + SECOND // 2) == 20
    assert meter.advance(5 + SECOND)
    meter.count(99)
    assert meter.rate(5 + SECOND + 1) == 10
    assert meter.advance(5 + 3 * SECOND)
    assert meter.rate(5 + 3 * SECOND) == 49.5
    meter.restart()
    assert meter.rate(5 + 4 * SECOND) == 0
