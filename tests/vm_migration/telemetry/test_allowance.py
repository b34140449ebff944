"""How many lines of a log one cause may have."""

from hypothesis import given
from hypothesis import strategies as st

from vm_migration.telemetry.allowance import KEPT, Allowance

GAPS = st.lists(st.floats(0, 5), max_size=200)


@given(GAPS, st.integers(1, 20), st.sampled_from([0.1, 1.0, 7.5]))
def test_no_cause_has_more_lines_than_its_burst_and_what_time_brings(
    gaps: list[float], burst: int, per_second: float
) -> None:
    allowance, now, written = Allowance(burst, per_second), 0.0, 0
    for gap in gaps:
        now += gap
        written += allowance.take("a", now) is not None
    assert written <= burst + now * per_second + 1e-6


@given(GAPS, st.integers(1, 20))
def test_what_is_withheld_is_told_by_the_next_line(gaps: list[float], burst: int) -> None:
    allowance, now, accounted = Allowance(burst, 1.0), 0.0, 0
    for gap in gaps:
        now += gap
        told = allowance.take("a", now)
        accounted += 0 if told is None else told + 1
    last = allowance.take("a", now + 2.0)
    assert last is not None
    assert accounted + last == len(gaps)


def test_one_cause_takes_nothing_from_another() -> None:
    allowance = Allowance(2, 1.0)
    assert [allowance.take("a", 0.0) for _ in range(3)] == [0, 0, None]
    assert allowance.take("b", 0.0) == 0


def test_a_clock_that_stands_still_gives_nothing_back() -> None:
    allowance = Allowance(1, 1.0)
    assert [allowance.take("a", 5.0) for _ in range(4)] == [0, None, None, None]
    assert allowance.take("a", 6.0) == 3


def test_only_so_many_causes_are_remembered() -> None:
    allowance = Allowance(1, 1.0)
    for number in range(10 * KEPT):
        assert allowance.take(str(number), 0.0) == 0
    assert len(allowance._left) == KEPT
    assert allowance.take(str(10 * KEPT - 1), 0.0) is None
    assert allowance.take("0", 0.0) == 0
