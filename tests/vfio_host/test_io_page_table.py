"""The IO page table against a dictionary of pages, and the worked vectors V3, V10, V11 and V12 of semantics 15."""

import tracemalloc
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.bits import ones
from tests.vfio_host.shared_memory import shared_memory as memory
from vfio_host.errors import DmaFault
from vfio_host.interface.answers import Bitmap
from vfio_host.interface.bitmaps import bitmap_bytes
from vfio_host.io_page_table import IoPageTable
from vfio_host.memory_file import MemoryFile

PAGE = 4096
MIB = 1 << 20


def query(table: IoPageTable, iova: int, length: int, page_size: int = PAGE, *, clear: bool) -> Bitmap:
    """Read the bits, and reset them when `clear`."""
    bitmap = table.read_dirty(iova, length, page_size)
    if clear:
        table.clear_dirty(iova, length)
    return bitmap


@pytest.mark.parametrize(
    ("size", "expected"),
    [(4 << 10, 8), (256 << 10, 8), (260 << 10, 16), (8 << 40, 268435456), (16 << 40, 536870912)],
)
def test_v3_bitmap_sizes(size: int, expected: int) -> None:
    assert bitmap_bytes(size // PAGE) == expected


@pytest.mark.parametrize(("leaf", "expected"), [(2 * MIB, list(range(512))), (PAGE, [0x12])])
def test_v10_one_byte_dirties_its_leaf(leaf: int, expected: list[int]) -> None:
    table = IoPageTable(leaf)
    table.map(0x200000, 2 * MIB, memory(2 * MIB), 0)
    table.set_tracking(enable=True)
    table.write(0x212345, b"x")
    assert ones(query(table, 0x200000, 2 * MIB, clear=False)) == expected


def test_v11_no_clear_reads_the_same_twice_and_a_clearing_query_leaves_zeros() -> None:
    table = IoPageTable()
    table.map(0, MIB, memory(MIB), 0)
    table.set_tracking(enable=True)
    table.write(0x5000, b"x" * 8192)
    first = query(table, 0, MIB, clear=False)
    assert ones(first) == [5, 6]
    assert query(table, 0, MIB, clear=False) == first
    assert query(table, 0, MIB, clear=True) == first
    assert ones(query(table, 0, MIB, clear=True)) == []


def test_v12_a_whole_section_is_queried_without_clearing_then_unmapped() -> None:
    base, size = 0x1_0000_0000, 4 << 30
    table = IoPageTable()
    table.map(base, size, memory(size), 0)
    table.set_tracking(enable=True)
    table.write(base + size - 1, b"x")
    assert ones(query(table, base, size, clear=False)) == [size // PAGE - 1]
    assert table.unmap(base, size) == size
    assert ones(query(table, base, size, clear=False)) == []


def test_a_terabyte_mapping_costs_nothing_until_it_is_written() -> None:
    table, backing = IoPageTable(), memory(1 << 40)
    tracemalloc.start()
    try:
        table.map(0, 1 << 40, backing, 0)
        table.set_tracking(enable=True)
        table.write((1 << 39) + 5, b"x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 * MIB
    assert ones(query(table, 1 << 39, 64 * PAGE, clear=True)) == [0]


def test_a_large_leaf_that_is_only_partly_asked_for_loses_its_bit_as_in_the_kernel() -> None:
    table = IoPageTable(2 * MIB)
    table.map(0, 2 * MIB, memory(2 * MIB), 0)
    table.set_tracking(enable=True)
    table.write(0, b"x")
    assert ones(query(table, MIB, 2 * PAGE, clear=True)) == [0, 1]
    assert ones(query(table, 0, 2 * MIB, clear=True)) == []


def test_a_query_that_begins_within_a_leaf_walks_on_by_whole_leaves() -> None:
    table = IoPageTable(2 * MIB)
    table.map(0, 6 * MIB, memory(6 * MIB), 0)
    table.set_tracking(enable=True)
    table.write(2 * MIB, b"x")
    assert ones(query(table, MIB, 5 * MIB, clear=False)) == list(range(512, 1024))
    table.write(4 * MIB, b"x")
    assert ones(query(table, MIB, 5 * MIB, clear=True)) == list(range(512, 1280))
    assert ones(query(table, 0, 6 * MIB, clear=False)) == []


def test_ends_that_are_not_aligned_have_small_leaves() -> None:
    table = IoPageTable(1 << 30)
    table.map(2 * MIB - PAGE, 2 * MIB + 2 * PAGE, memory(8 * MIB), 2 * MIB - PAGE)
    table.set_tracking(enable=True)
    for iova, expected in [
        (2 * MIB - 1, [0]),
        (2 * MIB + 5 * PAGE, list(range(1, 513))),
        (4 * MIB, [513]),
    ]:
        table.write(iova, b"x")
        assert ones(query(table, 2 * MIB - PAGE, 2 * MIB + 2 * PAGE, clear=True)) == expected


def test_memory_that_is_not_aligned_with_its_iova_has_small_leaves() -> None:
    table = IoPageTable(2 * MIB)
    table.map(2 * MIB, 2 * MIB, memory(8 * MIB), PAGE)
    table.set_tracking(enable=True)
    table.write(2 * MIB + 5 * PAGE, b"x")
    assert ones(query(table, 2 * MIB, 2 * MIB, clear=True)) == [5]


@pytest.mark.parametrize(("page", "large"), [(16 << 10, 32 * MIB), (64 << 10, 512 * MIB)])
def test_a_host_of_larger_pages_has_leaves_of_its_own(page: int, large: int) -> None:
    table = IoPageTable(1 << 30, page)
    table.map(0, large + page, memory(large + page), 0)
    table.set_tracking(enable=True)
    table.write(large + 5, b"x")
    assert ones(query(table, 0, large + page, page, clear=True)) == [large // page]
    assert table.read_dirty(0, large + page, page).runs == ()
    table.write(5, b"x")
    assert query(table, 0, large + page, page, clear=True).runs == ((0, large // page),)


def test_a_query_by_larger_pages_gathers_leaves() -> None:
    table = IoPageTable()
    table.map(0x3000, 0x5000, memory(MIB), 0)
    table.set_tracking(enable=True)
    table.write(0x3000, b"x")
    table.write(0x6000, b"x")
    assert ones(query(table, 0, 0x10000, 0x2000, clear=False)) == [1, 3]


def test_enabling_clears_what_is_stale_and_nothing_is_recorded_before() -> None:
    table = IoPageTable()
    table.map(0, MIB, memory(MIB), 0)
    table.write(0, b"x")
    assert ones(query(table, 0, MIB, clear=False)) == []
    table.set_tracking(enable=True)
    table.write(0, b"x")
    table.set_tracking(enable=False)
    table.set_tracking(enable=True)
    assert ones(query(table, 0, MIB, clear=False)) == []


def test_faults_name_the_address_and_nothing_is_written() -> None:
    backing = memory(MIB)
    table = IoPageTable()
    table.map(0x1000, 0x1000, backing, 0)
    table.map(0x2000, 0x1000, backing, 0x1000, writable=False)
    table.set_tracking(enable=True)
    with pytest.raises(DmaFault) as fault:
        table.write(0x1800, b"x" * 0x1000)
    assert (fault.value.iova, fault.value.write) == (0x2000, True)
    assert bytes(backing.view[:0x2000]) == bytes(0x2000)
    assert ones(query(table, 0, 0x4000, clear=False)) == []
    assert table.read(0x1800, 0x1000) == bytes(0x1000)
    with pytest.raises(DmaFault) as fault:
        table.read(0x2800, 0x1000)
    assert (fault.value.iova, fault.value.write) == (0x3000, False)
    with pytest.raises(DmaFault):
        table.read((1 << 64) - 8, 64)


def test_a_write_across_mappings_lands_in_both() -> None:
    backing = memory(MIB)
    table = IoPageTable()
    table.map(0x1000, 0x1000, backing, 0x8000)
    table.map(0x2000, 0x1000, backing, 0x3000)
    table.set_tracking(enable=True)
    table.write(0x1FFE, b"abcd")
    assert bytes(backing.view[0x8FFE:0x9000]) + bytes(backing.view[0x3000:0x3002]) == b"abcd"
    assert table.read(0x1FFE, 4) == b"abcd"
    assert ones(query(table, 0x1000, 0x2000, clear=True)) == [0, 1]


@dataclass
class Model:
    """Pages as a dictionary: which page of memory, and is it dirty."""

    pages: dict[int, int] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    mappings: list[tuple[int, int]] = field(default_factory=list)


SPACE = 96
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["map", "unmap", "write", "query", "peek"]),
        st.integers(0, SPACE - 1),
        st.integers(1, 24),
        st.integers(0, PAGE - 1),
    ),
    max_size=60,
)


def apply(table: IoPageTable, model: Model, backing: MemoryFile, step: tuple[str, int, int, int]) -> None:
    action, first, count, inside = step
    run = range(first, first + count)
    if action == "map":
        if not any(page in model.pages for page in run) and first + count <= SPACE:
            table.map(first * PAGE, count * PAGE, backing, first * PAGE)
            model.pages |= {page: page for page in run}
            model.mappings.append((first, count))
    elif action == "unmap":
        gone = [m for m in model.mappings if first <= m[0] and m[0] + m[1] <= first + count]
        assert table.unmap(first * PAGE, count * PAGE) == sum(length for _, length in gone) * PAGE
        model.mappings = [m for m in model.mappings if m not in gone]
        for start, length in gone:
            for page in range(start, start + length):
                del model.pages[page]
                model.dirty.discard(page)
    elif action == "write":
        touched = range(first, (first * PAGE + inside + count * 512 - 1) // PAGE + 1)
        if all(page in model.pages for page in touched):
            table.write(first * PAGE + inside, b"\xa5" * (count * 512))
            model.dirty.update(touched)
        else:
            with pytest.raises(DmaFault):
                table.write(first * PAGE + inside, b"\xa5" * (count * 512))
    else:
        expected = [page - first for page in run if page in model.dirty]
        assert ones(query(table, first * PAGE, count * PAGE, clear=action == "query")) == expected
        if action == "query":
            model.dirty.difference_update(run)


@settings(max_examples=120)
@given(OPERATIONS)
def test_the_table_does_what_a_dictionary_of_pages_does(steps: list[tuple[str, int, int, int]]) -> None:
    table, model, backing = IoPageTable(), Model(), memory(SPACE * PAGE)
    table.set_tracking(enable=True)
    for step in steps:
        apply(table, model, backing, step)
    assert ones(query(table, 0, SPACE * PAGE, clear=False)) == sorted(model.dirty)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 63), st.booleans()), max_size=80), st.sampled_from([PAGE, 16 << 10]))
def test_no_write_is_ever_missing_from_the_harvests(steps: list[tuple[int, bool]], leaf: int) -> None:
    """Any interleaving of writes and clearing queries: what was harvested covers every page that was written."""
    table = IoPageTable(leaf)
    table.map(0, 64 * PAGE, memory(64 * PAGE), 0)
    table.set_tracking(enable=True)
    written, harvested = set(), set()
    for page, harvest in steps:
        if harvest:
            harvested.update(ones(query(table, 0, 64 * PAGE, clear=True)))
        else:
            table.write(page * PAGE, b"x")
            written.add(page)
    harvested.update(ones(query(table, 0, 64 * PAGE, clear=True)))
    assert written <= harvested
