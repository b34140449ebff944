from collections.abc import Iterator

import pytest

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
