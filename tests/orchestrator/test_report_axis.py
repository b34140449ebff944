"""Scales keep order and bounds, and marks are few, even and cover what is drawn."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.picture.axis import Axis, byte_ticks, time_ticks

Ticks = Callable[[float, int], tuple[float, ...]]
HIGHS = st.floats(0.0, 1e15)
BOTH = pytest.mark.parametrize("ticks", [byte_ticks, time_ticks])


@BOTH
@given(high=HIGHS, most=st.integers(1, 12))
def test_marks_are_few_and_even_and_within(ticks: Ticks, high: float, most: int) -> None:
    marks = ticks(high, most)
    assert marks[0] == 0.0
    assert len(marks) <= most + 1
    assert marks[-1] <= high * (1 + 1e-6)
    steps = [after - before for before, after in pairwise(marks)]
    assert steps == pytest.approx([steps[0]] * len(steps)) if steps else True


@BOTH
@given(high=st.floats(1.0, 1e15), most=st.integers(4, 12))
def test_marks_reach_beyond_the_middle(ticks: Ticks, high: float, most: int) -> None:
    assert ticks(max(high, float(most)), most)[-1] >= high / 2


@pytest.mark.parametrize(
    ("high", "marks"),
    [
        (1000.0, [0, 200, 400, 600, 800, 1000]),
        (65_000.0, [0, 20_000, 40_000, 60_000]),
        (400_000.0, [0, 120_000, 240_000, 360_000]),
        (0.0, [0]),
    ],
)
def test_time_is_marked_as_people_count_it(high: float, marks: list[float]) -> None:
    assert list(time_ticks(high, 5)) == pytest.approx(marks)


def test_bytes_are_marked_in_powers_of_two() -> None:
    assert list(byte_ticks(float(1 << 30), 4)) == [0, 256 << 20, 512 << 20, 768 << 20, 1 << 30]


@given(high=HIGHS, values=st.tuples(st.floats(-1e15, 1e15), st.floats(-1e15, 1e15)))
def test_places_keep_the_order_of_values_and_stay_inside(high: float, values: tuple[float, float]) -> None:
    axis = Axis(high, 100.0, 900.0)
    low, top = (axis.at(value) for value in sorted(values))
    assert 100.0 <= low <= top <= 900.0


def test_an_axis_may_run_downwards() -> None:
    axis = Axis(10.0, 200.0, 20.0)
    assert (axis.at(0.0), axis.at(5.0), axis.at(10.0)) == (200.0, 110.0, 20.0)
