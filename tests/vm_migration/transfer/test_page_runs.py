from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.page_runs import are_canonical, page_count, pages_of, pieces, run_pieces, runs_of, split
from vmm.memory.dirty_bitmap import DirtyBitmap

page_sets = st.sets(st.integers(0, 400), max_size=60)


def bitmap_of(pages: set[int], size: int = 401) -> DirtyBitmap:
    return DirtyBitmap.from_pages(size, np.array(sorted(pages), dtype=np.int64))


@given(page_sets)
@settings(max_examples=80)
def test_runs_and_pages_are_two_names_of_one_set(pages: set[int]) -> None:
    runs = runs_of(np.array(sorted(pages), dtype=np.int64))
    assert pages_of(runs).tolist() == sorted(pages)
    assert [tuple(run) for run in runs.tolist()] == list(bitmap_of(pages).runs())
    assert page_count(runs) == len(pages)
    assert are_canonical(runs)


@given(page_sets, st.integers(1, 7))
@settings(max_examples=80)
def test_pieces_are_the_set_in_order(pages: set[int], size: int) -> None:
    found = [piece.tolist() for piece in pieces(bitmap_of(pages), size)]
    assert list(chain.from_iterable(found)) == sorted(pages)
    assert all(0 < len(piece) <= size for piece in found)


@given(page_sets, st.integers(1, 7))
@settings(max_examples=80)
def test_run_pieces_are_the_same_set_in_canonical_tables(pages: set[int], size: int) -> None:
    tables = list(run_pieces(bitmap_of(pages), size))
    assert [page for table in tables for page in pages_of(table).tolist()] == sorted(pages)
    assert all(are_canonical(table) and 0 < page_count(table) <= size for table in tables)


def test_pieces_cross_the_windows_of_a_large_bitmap() -> None:
    large = DirtyBitmap(3 << 18)
    large.set_run((1 << 18) - 2, 4)
    large.set_run((3 << 18) - 1, 1)
    found = np.concatenate(list(pieces(large, 1 << 16)))
    assert found.tolist() == large.indexes().tolist()


@given(page_sets, st.integers(1, 9))
@settings(max_examples=80)
def test_shares_are_disjoint_even_ascending_and_whole(pages: set[int], streams: int) -> None:
    shares = split(bitmap_of(pages), streams)
    assert len(shares) == streams
    assert list(chain.from_iterable(share.indexes().tolist() for share in shares)) == sorted(pages)
    counts = [share.count() for share in shares]
    assert max(counts) - min(counts) <= 1
    assert split(bitmap_of(pages), streams) == shares


def test_a_block_without_pages_splits_into_nothing() -> None:
    assert [share.count() for share in split(DirtyBitmap(0), 3)] == [0, 0, 0]
