from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.page_comparison import differing_pages
from lab.rehearsal.bulk_stream import untouched
from vmm.memory.ram_block import RamBlock

PAGES = 1 << 20


@pytest.fixture
def blocks() -> Iterator[tuple[RamBlock, RamBlock]]:
    one, other = (RamBlock.create("test", PAGES * 4096) for _ in range(2))
    yield one, other
    one.close()
    other.close()


def test_pages_differ_by_their_bytes_alone(blocks: tuple[RamBlock, RamBlock]) -> None:
    one, other = blocks
    one.words[7, 3] = other.words[7, 3] = 5
    one.words[900_000, 511] = 1
    other.words[11, 0] = 2
    one.words[12, 0] = 0
    assert differing_pages(one, other) == {11, 900_000}


def test_what_nobody_touched_stays_untouched(blocks: tuple[RamBlock, RamBlock]) -> None:
    one, other = blocks
    one.words[500_000, 0] = 1
    assert differing_pages(one, other) == {500_000}
    assert one.populated_bytes() <= 8192
    assert untouched(one).count() == PAGES - 1


def test_blocks_of_two_sizes_are_no_pair(blocks: tuple[RamBlock, RamBlock]) -> None:
    small = RamBlock.create("test", 4096)
    with pytest.raises(ValueError, match="cannot be compared"):
        differing_pages(blocks[0], small)
    small.close()


FEW = 9000
"""More than two of the pieces that are compared at a time."""
WRITES = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([0, 1, 4095, 4096, 8191, 8192, FEW - 1]) | st.integers(0, FEW - 1),
        st.sampled_from([0, 255, 511]),
        st.integers(0, 2),
    ),
    max_size=40,
)


@given(writes=WRITES)
def test_the_pages_are_those_whose_bytes_differ(writes: list[tuple[bool, int, int, int]]) -> None:
    """Zeros written to a page make it memory, and no other than a hole."""
    one, other = (RamBlock.create("test", FEW * 4096) for _ in range(2))
    try:
        for first, page, word, value in writes:
            (one if first else other).words[page, word] = value
        held = [block.populated_bytes() for block in (one, other)]
        found = differing_pages(one, other)
        assert found == differing_pages(other, one)
        written = sorted({page for _, page, _, _ in writes})
        assert found == {page for page in written if np.any(one.words[page] != other.words[page])}
        assert sum(held) <= 2 * 4096 * len(written)
    finally:
        one.close()
        other.close()
