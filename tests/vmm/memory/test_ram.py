import os

import numpy as np
import pytest

from vfio_host.interface.write_witness import WriteWitness
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.guest_physical import AccessFault, GuestMemory, sections
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock

MIB = 1 << 20


def test_ram_above_the_hole_has_another_address_than_offset() -> None:
    low, high = sections(4 << 30)
    assert (low.base, low.offset, low.size) == (0, 0, 2 << 30)
    assert (high.base, high.offset, high.size) == (4 << 30, 2 << 30, 2 << 30)
    assert len(sections(2 << 30)) == 1


def test_an_adopted_block_is_the_same_memory() -> None:
    block = RamBlock.create("test", MIB)
    twin = RamBlock.adopt(os.dup(block.descriptor))
    block.words[3, 5] = 77
    assert twin.words[3, 5] == 77
    assert twin.pages == MIB // PAGE_SIZE


def test_extents_name_what_was_touched_and_nothing_else() -> None:
    block = RamBlock.create("test", 64 * MIB)
    block.words[1000, 0] = 1
    block.populate(5000, 16)
    touched = {page for first, count in block.extents() for page in range(first, first + count)}
    assert {1000, *range(5000, 5016)} <= touched
    assert len(touched) < 64, "holes must not be reported as memory"


def test_extents_can_be_asked_of_a_part_of_a_terabyte() -> None:
    block = RamBlock.create("test", 1 << 40)
    middle = 1 << 27
    block.words[middle, 0] = 1
    (first, count), *rest = block.extents(middle - 5, 100)
    assert rest == []
    assert first <= middle < first + count
    assert list(block.extents(middle + count, 1 << 20)) == []
    assert list(block.extents(0, 1000)) == []


def test_writes_mark_their_pages_and_reads_do_not() -> None:
    memory = GuestMemory(RamBlock.create("test", MIB))
    memory.log.enabled = True
    memory.write(2 * PAGE_SIZE - 1, b"ab")
    memory.write_u64(10 * PAGE_SIZE + 8, 1 << 63)
    assert memory.read(2 * PAGE_SIZE - 1, 2) == b"ab"
    assert memory.read_u64(10 * PAGE_SIZE + 8) == 1 << 63
    assert memory.log.swap().indexes().tolist() == [1, 2, 10]
    assert not memory.log.swap()


@pytest.mark.parametrize("address", [MIB, MIB + 8, -8, 1 << 40])
def test_an_access_outside_ram_is_a_fault(address: int) -> None:
    memory = GuestMemory(RamBlock.create("test", MIB))
    with pytest.raises(AccessFault):
        memory.read(address, 8)
    with pytest.raises(AccessFault):
        memory.write_u64(address & ~7, 1)


def test_the_witness_sees_every_write_once() -> None:
    block = RamBlock.create("test", 16 * MIB)
    witness = WriteWitness(block.address, block.size)
    block.words[np.array([0, 7, 4095]), 1] = 9
    assert DirtyBitmap.from_bytes(block.pages, witness.report()).indexes().tolist() == [0, 7, 4095]
    assert not DirtyBitmap.from_bytes(block.pages, witness.report())
    block.words[7, 2] = 10
    assert DirtyBitmap.from_bytes(block.pages, witness.report()).indexes().tolist() == [7]
    witness.close()


def test_the_witness_survives_more_regions_than_one_scan_returns() -> None:
    block = RamBlock.create("test", 600 * MIB)
    witness = WriteWitness(block.address, block.size)
    block.words[::2, 0] = 1
    assert DirtyBitmap.from_bytes(block.pages, witness.report()).count() == block.pages // 2
    assert not DirtyBitmap.from_bytes(block.pages, witness.report())
    witness.close()
