"""Memory is compared span by span: whatever differs is found, and holes are not read."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vm_migration.transfer.span_digests import MOST_SPANS, compared, pages_of, span_digests, span_pages
from vmm.memory.ram_block import RamBlock

PAGES = 16 * 5 + 3


@given(st.sets(st.integers(0, PAGES - 1), max_size=6), st.sets(st.integers(0, PAGES - 1), min_size=1, max_size=4))
def test_every_page_that_differs_is_in_a_span_that_differs_and_no_other_span_does(
    written: set[int], different: set[int]
) -> None:
    one, two = (RamBlock.create("spans", PAGES * 4096) for _ in range(2))
    for block in (one, two):
        for page in written:
            block.words[page, 5] = page + 1
    for page in different:
        two.words[page, 9] = 1
    found = np.flatnonzero(span_digests(one.words, one.extents()) != span_digests(two.words, two.extents()))
    assert set(found.tolist()) == {page // span_pages(PAGES) for page in different}
    for block in (one, two):
        block.close()


def test_holes_count_as_zeros_and_stay_holes() -> None:
    holes, zeros = (RamBlock.create("spans", PAGES * 4096) for _ in range(2))
    zeros.populate(0, PAGES)
    assert np.array_equal(span_digests(holes.words, holes.extents()), span_digests(zeros.words, zeros.extents()))
    assert holes.populated_bytes() == 0
    for block in (holes, zeros):
        block.close()


@given(st.integers(1, 1 << 40))
def test_there_are_never_more_spans_than_fit_into_a_message(pages: int) -> None:
    span = span_pages(pages)
    assert -(-pages // span) <= MOST_SPANS
    assert span & (span - 1) == 0
    assert span == 16 or -(-pages // (span // 2)) > MOST_SPANS


@given(st.integers(1, 5000))
def test_all_spans_together_have_all_pages(pages: int) -> None:
    assert pages_of(range(-(-pages // span_pages(pages))), pages) == pages


def test_a_span_that_differs_and_one_of_which_nothing_was_stated_are_not_verified() -> None:
    block = RamBlock.create("spans", PAGES * 4096)
    here = span_digests(block.words, block.extents())
    block.close()
    stated = here.copy()
    stated[5] ^= np.uint64(1)
    result = compared(here, stated.astype("<u8").tobytes(), PAGES)
    assert (result.pages_verified, result.pages_mismatched, result.mismatched) == (PAGES - 3, 3, (80,))
    short = compared(here, here[:4].astype("<u8").tobytes(), PAGES)
    assert (short.pages_verified, short.pages_unstated, short.whole) == (64, 19, False)
    assert compared(here, here.astype("<u8").tobytes(), PAGES).whole
