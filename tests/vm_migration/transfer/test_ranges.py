"""What is believed of a figure: bounds around what is likely."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_migration.transfer.ranges import Range

figures = st.floats(0, 1e12)
samples = st.lists(figures, min_size=1, max_size=10)


@given(samples)
def test_samples_lie_within_the_range_that_they_make(found: list[float]) -> None:
    made = Range.of_samples(found)
    assert all(made.low <= each <= made.high for each in found)
    assert made.low <= made.likely <= made.high


@given(samples)
def test_a_sample_seen_once_is_trusted_less_than_one_seen_often(found: list[float]) -> None:
    once, often = Range.of_samples(found[:1]), Range.of_samples(found[:1] * 8)
    assert once.low <= often.low
    assert once.high >= often.high


def test_one_old_exception_does_not_change_what_is_likely() -> None:
    assert Range.of_samples([1.0, 100.0, 100.0, 100.0]).likely == 100
    assert Range.of_samples([100.0, 100.0, 100.0, 1.0]).low < 1


@given(figures, st.floats(0, 1), figures, st.floats(0, 10))
def test_a_bound_is_kept(figure: float, share: float, bound: float, factor: float) -> None:
    most = Range.around(bound, share).product(Range.exactly(factor))
    bounded = Range.around(figure, share).at_most(most)
    assert bounded.high <= most.high
    assert bounded.likely <= most.likely
    assert bounded.low <= figure


@pytest.mark.parametrize("wrong", [(2.0, 1.0, 3.0), (-1.0, 0.0, 1.0), (0.0, 2.0, 1.0), (float("nan"), 1.0, 2.0)])
def test_what_does_not_ascend_is_no_range(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="No range"):
        Range(*wrong)
    with pytest.raises(ValueError, match="No samples"):
        Range.of_samples([])
