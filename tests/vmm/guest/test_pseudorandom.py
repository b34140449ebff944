import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.guest.pseudorandom import Permutation, fractions, mixed, mixed_one


@settings(max_examples=80)
@given(st.integers(1, 5000), st.integers(0, 1 << 64))
def test_an_order_names_everything_exactly_once(size: int, seed: int) -> None:
    places = Permutation(size, seed).places(np.arange(size, dtype=np.uint64))
    assert np.array_equal(np.sort(places), np.arange(size, dtype=np.uint64))


@settings(max_examples=30)
@given(st.integers(2, 5000), st.integers(0, 1 << 64), st.data())
def test_a_part_of_an_order_is_that_part_of_the_whole(size: int, seed: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size))
    positions = np.arange(size, dtype=np.uint64)
    order = Permutation(size, seed)
    assert np.array_equal(order.places(positions)[first:last], Permutation(size, seed).places(positions[first:last]))
    assert np.array_equal(positions, np.arange(size, dtype=np.uint64))


def test_an_order_is_not_the_natural_one() -> None:
    places = Permutation(65536, 1).places(np.arange(65536, dtype=np.uint64)).astype(np.int64)
    assert np.abs(np.diff(places)).mean() > 65536 / 4
    assert len(np.unique(places[:1024] >> 10)) > 30
    assert not np.array_equal(places, Permutation(65536, 2).places(np.arange(65536, dtype=np.uint64)).astype(np.int64))


def test_an_order_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="No order"):
        Permutation(0, 1)


@settings(max_examples=40)
@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=20))
def test_arrays_and_single_values_mix_alike(values: list[int]) -> None:
    assert mixed(np.array(values, dtype=np.uint64)).tolist() == [mixed_one(value) for value in values]


def test_fractions_fill_the_unit_interval_evenly() -> None:
    drawn = fractions(np.arange(10_000, dtype=np.uint64))
    assert 0 <= drawn.min() < drawn.max() < 1
    assert np.histogram(drawn, bins=10, range=(0, 1))[0].min() > 900
