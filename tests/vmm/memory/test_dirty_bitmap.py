import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.dirty_log import DirtyLog

PAGES = 300
page_sets = st.sets(st.integers(0, PAGES - 1))


def bitmap_of(pages: set[int]) -> DirtyBitmap:
    return DirtyBitmap.from_pages(PAGES, np.array(sorted(pages), dtype=np.int64))


@given(page_sets, page_sets)
def test_set_algebra(left: set[int], right: set[int]) -> None:
    a, b = bitmap_of(left), bitmap_of(right)
    assert set((a | b).indexes().tolist()) == left | right
    assert set((a & b).indexes().tolist()) == left & right
    assert set((a - b).indexes().tolist()) == left - right
    assert a.count() == len(left)
    assert bool(a) == bool(left)
    assert [page in a for page in range(PAGES)] == [page in left for page in range(PAGES)]


@given(page_sets)
def test_runs_are_maximal_and_name_every_page(pages: set[int]) -> None:
    runs = list(bitmap_of(pages).runs())
    assert {page for first, count in runs for page in range(first, first + count)} == pages
    assert all(first + count < following for (first, count), (following, _) in itertools.pairwise(runs))


@given(page_sets)
def test_bytes_go_round(pages: set[int]) -> None:
    bitmap = bitmap_of(pages)
    assert DirtyBitmap.from_bytes(PAGES, bitmap.to_bytes()) == bitmap


@given(page_sets, st.integers(0, PAGES - 1), st.integers(0, PAGES))
def test_runs_are_set_and_cleared(pages: set[int], first: int, count: int) -> None:
    count = min(count, PAGES - first)
    run = set(range(first, first + count))
    bitmap = bitmap_of(pages)
    bitmap.set_run(first, count)
    assert set(bitmap.indexes().tolist()) == pages | run
    bitmap.clear_run(first, count)
    assert set(bitmap.indexes().tolist()) == pages - run


@given(page_sets, page_sets, st.integers(0, PAGES - 1), st.integers(1, PAGES))
def test_a_runs_own_bits_are_merged_at_its_place(have: set[int], bits: set[int], first: int, count: int) -> None:
    count = min(count, PAGES - first)
    own = {bit for bit in bits if bit < count}
    data = DirtyBitmap.from_pages(count, np.array(sorted(own), dtype=np.int64)).to_bytes()
    bitmap = bitmap_of(have)
    bitmap.merge_bits(first, count, data)
    assert set(bitmap.indexes().tolist()) == have | {first + bit for bit in own}


def test_bits_past_a_runs_end_are_ignored() -> None:
    bitmap = DirtyBitmap(PAGES)
    bitmap.merge_bits(64, 3, b"\xff" * 8)
    assert bitmap.indexes().tolist() == [64, 65, 66]


@pytest.mark.parametrize("data", [b"", b"\0" * 39, b"\0" * 48, b"\xff" * 40])
def test_bytes_that_are_not_such_a_bitmap_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="Bitmap"):
        DirtyBitmap.from_bytes(PAGES, data)


@pytest.mark.parametrize(("first", "count"), [(-1, 2), (299, 2), (0, 301), (5, -1)])
def test_a_run_that_leaves_the_block_is_refused(first: int, count: int) -> None:
    with pytest.raises(ValueError, match="not within"):
        DirtyBitmap(PAGES).set_run(first, count)


@given(page_sets, st.integers(0, PAGES - 1), st.integers(0, PAGES))
def test_a_run_is_contained_when_all_its_pages_are(pages: set[int], first: int, count: int) -> None:
    count = min(count, PAGES - first)
    assert bitmap_of(pages).contains_run(first, count) == (set(range(first, first + count)) <= pages)


def test_runs_of_a_large_block_go_on_over_the_windows_of_the_search() -> None:
    pages = 3 << 20
    bitmap = DirtyBitmap(pages)
    bitmap.set_run(5, (2 << 20) + 60)
    bitmap.set_run(pages - 1, 1)
    assert list(bitmap.runs()) == [(5, (2 << 20) + 60), (pages - 1, 1)]
    assert list(DirtyBitmap.full(pages).runs()) == [(0, pages)]


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 40_000)), max_size=6), st.booleans())
def test_a_log_names_what_was_marked_since_the_last_swap(marked: list[tuple[int, int]], enabled: bool) -> None:
    log = DirtyLog(240_000)
    log.enabled = True
    log.mark_pages(np.array([7, 239_999], dtype=np.int64))
    assert log.swap().indexes().tolist() == [7, 239_999]
    log.enabled = enabled
    expected = DirtyBitmap(240_000)
    for first, count in marked:
        log.mark_run(first, count)
        expected.set_run(first, count if enabled else 0)
    assert log.swap() == expected
    assert not log.swap()
