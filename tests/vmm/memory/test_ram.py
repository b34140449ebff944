import os
from pathlib import Path

import numpy as np
import pytest

from vfio_host.interface.write_witness import WriteWitness
from vmm.memory import huge_pages
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


def test_a_block_that_is_written_as_a_whole_has_huge_pages_in_every_process_that_maps_it() -> None:
    block = RamBlock.create("viaduct-ram-whole", 16 * MIB, whole=True)
    block.populate(0, block.pages)
    twin = RamBlock.adopt(os.dup(block.descriptor))
    twin.populate(0, twin.pages)
    huge = [_in_huge_pages(each.address) for each in (block, twin)]
    assert huge == [16 * MIB, 16 * MIB]
    block.words[4095, 511] = 5
    assert twin.words[4095, 511] == 5
    assert block.populated_bytes() == 16 * MIB


def test_a_block_of_odd_size_is_whole() -> None:
    block = RamBlock.create("viaduct-ram-odd", 5 * MIB + PAGE_SIZE, whole=True)
    block.populate(0, block.pages)
    block.words[:] = 7
    assert block.size == 5 * MIB + PAGE_SIZE
    assert list(block.extents()) == [(0, block.pages)]


@pytest.mark.parametrize("call", [430, 431, 432])
def test_where_huge_pages_are_refused_it_is_a_block_like_any_other(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    made = huge_pages._call

    def refused(number: int, *arguments: bytes | int | None) -> int:
        if number == call:
            raise PermissionError(1, "Operation not permitted")
        return made(number, *arguments)

    monkeypatch.setattr(huge_pages, "_call", refused)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    block = RamBlock.create("viaduct-ram-whole", MIB, whole=True)
    assert str((descriptors / str(block.descriptor)).readlink()).startswith("/memfd:")
    block.close()
    del block  # its mapping holds the file too
    assert len(list(descriptors.iterdir())) == before


def test_the_witness_tells_pages_of_huge_pages_apart() -> None:
    block = RamBlock.create("viaduct-ram-whole", 16 * MIB, whole=True)
    block.populate(0, block.pages)
    block.words[:, 3] = np.arange(block.pages)
    witness = WriteWitness(block.address, block.size)
    assert int(block.words[:, 3].sum()) == block.pages * (block.pages - 1) // 2, "what it holds is untouched"
    block.words[np.array([0, 7, 1000, 4095]), 1] = 9
    assert DirtyBitmap.from_bytes(block.pages, witness.report()).indexes().tolist() == [0, 7, 1000, 4095]
    assert not DirtyBitmap.from_bytes(block.pages, witness.report())
    witness.close()


def _in_huge_pages(address: int) -> int:
    """Return how many bytes of a mapping of this process are mapped by huge pages."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{address:x}-"):
            break
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("ShmemPmdMapped:"))
