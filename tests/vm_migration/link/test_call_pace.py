"""When a call's turn comes, and that nobody calls faster than he may."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_migration.link.call_pace import AT_ONCE, KEPT, LONGEST, CallPace

GAPS = st.lists(st.floats(0, 0.5), max_size=300)
RATES = st.sampled_from([1, 10, 100])


def turns(gaps: list[float], per_second: int) -> list[float]:
    """Return when the calls that had a turn went on."""
    pace, now, gone_on = CallPace(per_second), 0.0, []
    for gap in gaps:
        now += gap
        wait = pace.turn("vera", now)
        if wait is not None:
            gone_on.append(now + wait)
    return gone_on


@given(GAPS, RATES)
def test_in_no_time_go_more_calls_on_than_may(gaps: list[float], per_second: int) -> None:
    gone_on = turns(gaps, per_second)
    for first in range(0, len(gone_on), 13):
        for last in range(first, len(gone_on)):
            calls = last - first + 1
            assert calls <= (gone_on[last] - gone_on[first] + AT_ONCE) * per_second + 1 + 1e-6


@given(GAPS, RATES)
def test_calls_go_on_in_the_order_in_which_they_came(gaps: list[float], per_second: int) -> None:
    assert all(before <= after for before, after in pairwise(turns(gaps, per_second)))


@given(st.lists(st.floats(1.0, 3.0), max_size=50))
def test_who_calls_no_faster_than_he_may_never_waits(gaps: list[float]) -> None:
    pace, now = CallPace(1), 0.0
    for gap in gaps:
        now += gap
        assert pace.turn("vera", now) == 0.0


def test_who_floods_is_turned_away_and_has_turns_again_when_he_stops() -> None:
    pace = CallPace(10)
    waits = [pace.turn("vera", 0.0) for _ in range(1000)]
    had = [wait for wait in waits if wait is not None]
    assert had[0] == had[round(10 * AT_ONCE) - 1] == 0.0
    assert LONGEST - 0.2 <= max(had) <= LONGEST
    assert waits[-1] is None
    assert pace.turn("vera", LONGEST + AT_ONCE + 1.0) == 0.0


def test_one_who_floods_takes_no_turn_of_another() -> None:
    pace = CallPace(10)
    for _ in range(1000):
        pace.turn("vera", 0.0)
    assert pace.turn("wim", 0.0) == 0.0


def test_only_so_many_callers_are_remembered() -> None:
    pace = CallPace(1)
    for number in range(3 * KEPT):
        assert pace.turn(number, 0.0) == 0.0
    assert len(pace._next) == KEPT


@pytest.mark.parametrize("per_second", [0.001, 65536])
def test_paces_far_apart(per_second: float) -> None:
    assert CallPace(per_second).turn("vera", 5.0) == 0.0
