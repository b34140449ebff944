"""How dirty memory grows with time, from a window: held against loads whose growth is known."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.dirtying import Dirtying, Growth, concave, measured, spread_of

MIB = 1 << 20
WINDOW_MS = 1000.0


def windows_of(slices: list[set[int]], page: int = 4096) -> list[list[float]]:
    """Return the distinct bytes of each slice, each two, and so on."""
    lines, line = [], slices
    while True:
        lines.append([float(len(each) * page) for each in line])
        if len(line) == 1:
            return lines
        line = [one | other for one, other in zip(line[::2], line[1::2], strict=True)]


def random_writes(pages: int, a_slice: int, seed: int = 1) -> list[set[int]]:
    draws = np.random.default_rng(seed)
    return [set(draws.integers(0, pages, a_slice).tolist()) for _ in range(8)]


def sequential_writes(pages: int, a_slice: int) -> list[set[int]]:
    return [{(number * a_slice + at) % pages for at in range(a_slice)} for number in range(8)]


def test_writes_at_random_saturate_at_the_working_set() -> None:
    pages = 20_000
    found = measured(WINDOW_MS, windows_of(random_writes(pages, 2_000)), 1 << 40)
    for seconds in (0.5, 1.0, 2.0, 5.0, 20.0):
        true = pages * 4096 * -math.expm1(-16_000 * seconds / pages)
        assert found.likely.after(seconds * 1000) == pytest.approx(true, rel=0.05)
        assert found.low.after(seconds * 1000) <= true <= found.high.after(seconds * 1000)


def test_writes_in_order_go_straight_on_up_to_the_span() -> None:
    found = measured(WINDOW_MS, windows_of(sequential_writes(100_000, 1_000)), 16_000 * 4096)
    assert found.likely.after(1500) == pytest.approx(12_000 * 4096)
    assert found.likely.after(60_000) == pytest.approx(16_000 * 4096)


def test_a_small_set_that_is_written_all_the_time_does_not_grow() -> None:
    hot = [set(range(500))] * 8
    found = measured(WINDOW_MS, windows_of(hot), 1 << 40)
    assert found.likely.after(60_000) == pytest.approx(500 * 4096)
    assert found.high.after(60_000) == pytest.approx(500 * 4096 * 1.1)


def test_a_machine_that_wrote_nothing_writes_nothing() -> None:
    found = measured(WINDOW_MS, windows_of([set()] * 8), 1 << 40)
    assert found == Dirtying.none()
    assert found.high.after(1e9) == 0


def test_a_load_that_comes_and_goes_is_known_less_well() -> None:
    even = windows_of(sequential_writes(100_000, 1_000))
    bursts = windows_of([set(range(at * 4000, at * 4000 + (4000 if at < 2 else 100))) for at in range(8)])
    assert spread_of(bursts) > spread_of(even)


def test_what_was_seen_counts_even_beyond_the_span() -> None:
    found = measured(WINDOW_MS, windows_of(sequential_writes(100_000, 1_000)), 0)
    assert found.likely.after(1000) == pytest.approx(8_000 * 4096)


@pytest.mark.parametrize("wrong", [[], [[1.0]], [[1.0, 2.0, 3.0], [4.0]], [[1.0], [2.0]]])
def test_windows_must_halve(wrong: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="halve"):
        measured(WINDOW_MS, wrong, 0)


slices = st.lists(st.sets(st.integers(0, 200), max_size=60), min_size=8, max_size=8)
times = st.floats(0, 1e6)


@given(slices, st.integers(0, 1 << 30), times, times)
@settings(max_examples=200)
def test_growth_never_falls_is_concave_and_keeps_its_order(
    written: list[set[int]], span: int, one: float, other: float
) -> None:
    found = measured(WINDOW_MS, windows_of(written), span)
    early, late = sorted((one, other))
    for growth in (found.low, found.likely, found.high):
        first, second = growth.after(early), growth.after(late)
        assert 0 <= first <= second + 1e-6
        assert growth.after((early + late) / 2) >= (first + second) / 2 - 1e-3
    for ms in (early, late):
        assert found.low.after(ms) <= found.likely.after(ms) + 1e-6
        assert found.likely.after(ms) <= found.high.after(ms) + 1e-6


@given(slices, st.integers(0, 1 << 30))
def test_what_was_measured_lies_below_the_curve(written: list[set[int]], span: int) -> None:
    windows = windows_of(written)
    found = measured(WINDOW_MS, windows, span)
    assert found.likely.after(WINDOW_MS) == pytest.approx(windows[-1][0])
    for line in windows:
        assert found.likely.after(WINDOW_MS / len(line)) >= sum(line) / len(line) - 1e-3


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=8).map(sorted))
def test_a_hull_is_concave(heights: list[float]) -> None:
    corners = ((0.0, 0.0), *concave([(float(at + 1), height) for at, height in enumerate(heights)]))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(corners)]
    assert all(before >= after for before, after in pairwise(slopes))


def test_a_rate_without_a_measurement_holds_up_to_the_span() -> None:
    growth = Growth.steady(100 * MIB, 50 * MIB)
    assert growth.after(100) == pytest.approx(10 * MIB)
    assert growth.after(10_000) == 50 * MIB
