"""Sparse bits against a set of numbers."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from vfio_host.sparse_bits import STRETCH, SparseBits, runs_of

RUN = st.tuples(st.integers(0, 5 * STRETCH), st.integers(1, 3 * STRETCH))


@settings(max_examples=150)
@given(st.lists(st.tuples(st.booleans(), RUN), max_size=20), RUN)
def test_sparse_bits_are_a_set(steps: list[tuple[bool, tuple[int, int]]], asked: tuple[int, int]) -> None:
    bits, expected = SparseBits(), set[int]()
    for mark, (first, count) in steps:
        if mark:
            bits.mark(first, count)
            expected |= set(range(first, first + count))
        else:
            bits.reset(first, first + count)
            expected -= set(range(first, first + count))
    first, count = asked
    found = [
        base + place + n
        for base, window in bits.windows(first, first + count)
        for place, length in runs_of(window)
        for n in range(length)
    ]
    assert found == sorted(expected & set(range(first, first + count)))
    assert bool(bits) is bool(expected)
    bits.clear()
    assert not bits
    assert list(bits.windows(0, 1 << 60)) == []


@given(st.integers(0, 1 << 200))
def test_runs_of_a_number_add_up_to_it(number: int) -> None:
    runs = list(runs_of(number))
    assert sum(((1 << count) - 1) << place for place, count in runs) == number
    assert all(place + count < later for (place, count), (later, _) in pairwise(runs))
