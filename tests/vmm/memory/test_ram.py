import gc
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfio_host.interface import write_witness
from vfio_host.interface.write_witness import WriteWitness
from vmm.memory import huge_pages
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock
from vmm.memory.sections import sections

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
    gc.collect()  # what tests before this one left open is not closed while it counts
    before = len(list(descriptors.iterdir()))
    block = RamBlock.create("viaduct-ram-whole", MIB, whole=True)
    assert str((descriptors / str(block.descriptor)).readlink()).startswith("/memfd:")
    block.close()
    del block  # its mapping holds the file too
    assert len(list(descriptors.iterdir())) == before


@pytest.mark.parametrize("failing", ["open", "call"])
def test_where_there_is_no_file_in_huge_pages_they_are_asked_for_by_advice(
    monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def refused(*_: object, **__: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(*((os, "open") if failing == "open" else (huge_pages, "_call")), refused)
    whole, other = (RamBlock.create("viaduct-ram-whole", 4 * MIB, whole=whole) for whole in (True, False))
    monkeypatch.undo()
    assert ["hg" in _smaps(block.address)["VmFlags"].split() for block in (whole, other)] == [True, False]


@pytest.mark.parametrize("whole", [True, False])
def test_a_block_that_cannot_be_mapped_leaves_no_descriptor(whole: bool) -> None:
    descriptors = Path("/proc/self/fd")
    gc.collect()  # what tests before this one left open is not closed while it counts
    before = len(list(descriptors.iterdir()))
    with pytest.raises(OSError, match="Cannot allocate memory"):  # there are no addresses for so much
        RamBlock.create("viaduct-ram-much", 1 << 62, whole=whole)
    with pytest.raises(ValueError, match="whole number of pages"):
        RamBlock.create("viaduct-ram-odd", MIB + 1, whole=whole)
    assert len(list(descriptors.iterdir())) == before


@given(
    st.sets(st.integers(0, 7)),
    st.lists(st.sets(st.integers(0, 4095), max_size=60), min_size=1, max_size=3),
    st.sampled_from([64, 1024, 1 << 20]),
)
@settings(max_examples=25)
def test_the_witness_tells_what_was_written_however_its_pages_were_mapped(
    mapped: set[int], writes: list[set[int]], area: int
) -> None:
    block = RamBlock.create("viaduct-ram-whole", 16 * MIB, whole=True)
    block.populate(0, block.pages)
    twin = RamBlock.adopt(os.dup(block.descriptor))
    for huge in mapped:
        twin.words[huge * 512, 0] = 1
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(write_witness, "_AREA_PAGES", area)
        witness = WriteWitness(twin.address, twin.size)
        for written in writes:
            for page in written:
                twin.words[page, 1] += 1
            assert set(DirtyBitmap.from_bytes(twin.pages, witness.report()).indexes().tolist()) == written
        witness.close()
    assert len(_mappings(twin)) == 1, "there may be 65530 of them, and a terabyte has half a million huge pages"


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
    return int(_smaps(address)["ShmemPmdMapped"].split()[0]) << 10


def _smaps(address: int) -> dict[str, str]:
    """Return what the kernel tells of a mapping of this process."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    next(line for line in lines if line.startswith(f"{address:x}-"))
    fields = (line.partition(":") for line in itertools.takewhile(lambda line: "-" not in line.split()[0], lines))
    return {name: value.strip() for name, _, value in fields}


def _mappings(block: RamBlock) -> list[int]:
    """Return where the mappings begin of which this process's view of a block consists."""
    begins = (int(line.partition("-")[0], 16) for line in Path("/proc/self/maps").read_text().splitlines())
    return [begin for begin in begins if block.address <= begin < block.address + block.size]
