"""IOVA blocks: aligned, apart from each other and from the interrupt hole, and used again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.guest.dma import MapFailed
from vmm.guest.iova_allocator import IovaAllocator, block_order

lengths = st.integers(1, 5000).map(lambda pages: pages * 4096)


@given(st.lists(st.tuples(st.booleans(), lengths), max_size=60))
@settings(max_examples=150)
def test_blocks_never_overlap(program: list[tuple[bool, int]]) -> None:
    allocator, live = IovaAllocator(39), dict[int, int]()
    for keep, length in program:
        iova = allocator.allocate(length)
        size = 1 << block_order(length)
        assert size >= length
        assert iova % size == 0
        assert iova + size <= 0xFEE00000
        assert all(iova + size <= other or other + held <= iova for other, held in live.items())
        if keep:
            live[iova] = size
        else:
            allocator.free(iova, length)
            assert allocator.allocate(length) == iova, "a freed block is used first"
            allocator.free(iova, length)


def test_blocks_above_4_gib_follow_when_32_bits_are_used_up() -> None:
    allocator = IovaAllocator(39)
    taken = [allocator.allocate(1 << 30) for _ in range(4)]
    assert taken == [0x80000000, 0x40000000, (1 << 39) - (1 << 30), (1 << 39) - (2 << 30)]
    with pytest.raises(MapFailed):
        allocator.allocate(1 << 39)


def test_a_copy_continues_alike() -> None:
    allocator, copy = IovaAllocator(48), IovaAllocator(48)
    blocks = [allocator.allocate(pages * 4096) for pages in (1, 3, 3, 512)]
    for iova, pages in zip(blocks, (1, 3, 3), strict=False):
        allocator.free(iova, pages * 4096)
    copy.load(allocator.save())
    assert copy.save() == allocator.save()
    assert [copy.allocate(4 * 4096) for _ in range(3)] == [allocator.allocate(4 * 4096) for _ in range(3)]
