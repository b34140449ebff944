"""The IO page table against a dictionary of pages, and the worked vectors V3, V10, V11 and V12 of semantics 15."""

import os
import tracemalloc
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfio_host.dirty_bits import all_ones, bitmap_bytes
from vfio_host.errors import DmaFault
from vfio_host.io_page_table import IoPageTable
from vfio_host.memory_file import MemoryFile

PAGE = 4096
MIB = 1 << 20


def memory(size: int) -> MemoryFile:
    descriptor = os.memfd_create("test-ram")
    try:
        os.ftruncate(descriptor, size)
        return MemoryFile(descriptor, size)
    finally:
        os.close(descriptor)


def ones(bitmap: bytes) -> list[int]:
    flags = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), bitorder="little")
    return [int(page) for page in np.flatnonzero(flags)]


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
    assert ones(table.read_dirty(0x200000, 2 * MIB, clear=False)) == expected


def test_v11_no_clear_reads_the_same_twice_and_a_clearing_query_leaves_zeros() -> None:
    table = IoPageTable()
    table.map(0, MIB, memory(MIB), 0)
    table.set_tracking(enable=True)
    table.write(0x5000, b"x" * 8192)
    first = table.read_dirty(0, MIB, clear=False)
    assert ones(first) == [5, 6]
    assert table.read_dirty(0, MIB, clear=False) == first
    assert table.flushes == 0
    assert table.read_dirty(0, MIB, clear=True) == first
    assert table.flushes == 1
    assert ones(table.read_dirty(0, MIB, clear=True)) == []


def test_v12_a_whole_section_is_queried_without_clearing_then_unmapped() -> None:
    base, size = 0x1_0000_0000, 4 << 30
    table = IoPageTable()
    table.map(base, size, memory(size), 0)
    table.set_tracking(enable=True)
    table.write(base + size - 1, b"x")
    assert ones(table.read_dirty(base, size, clear=False)) == [size // PAGE - 1]
    assert table.unmap(base, size) == size
    assert table.flushes == 0
    assert ones(table.read_dirty(base, size, clear=False)) == []


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
    assert ones(table.read_dirty(1 << 39, 64 * PAGE, clear=True)) == [0]


def test_a_large_leaf_that_is_only_partly_asked_for_keeps_its_bit() -> None:
    table = IoPageTable(2 * MIB)
    table.map(0, 2 * MIB, memory(2 * MIB), 0)
    table.set_tracking(enable=True)
    table.write(0, b"x")
    assert ones(table.read_dirty(MIB, 2 * PAGE, clear=True)) == [0, 1]
    assert len(ones(table.read_dirty(0, 2 * MIB, clear=True))) == 512
    assert ones(table.read_dirty(0, 2 * MIB, clear=True)) == []


def test_a_query_by_larger_pages_gathers_leaves() -> None:
    table = IoPageTable()
    table.map(0x3000, 0x5000, memory(MIB), 0)
    table.set_tracking(enable=True)
    table.write(0x3000, b"x")
    table.write(0x6000, b"x")
    assert ones(table.read_dirty(0, 0x10000, 0x2000, clear=False)) == [1, 3]


def test_enabling_clears_what_is_stale_and_nothing_is_recorded_before() -> None:
    table = IoPageTable()
    table.map(0, MIB, memory(MIB), 0)
    table.write(0, b"x")
    assert ones(table.read_dirty(0, MIB, clear=False)) == []
    table.set_tracking(enable=True)
    table.write(0, b"x")
    table.set_tracking(enable=False)
    table.set_tracking(enable=True)
    assert ones(table.read_dirty(0, MIB, clear=False)) == []


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
    assert ones(table.read_dirty(0, 0x4000, clear=False)) == []
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
    assert ones(table.read_dirty(0x1000, 0x2000, clear=True)) == [0, 1]


@given(st.integers(0, 40), st.integers(1, 100))
def test_runs_of_ones(first: int, count: int) -> None:
    bitmap = bytearray(24)
    all_ones(bitmap, first, count)
    assert ones(bytes(bitmap)) == list(range(first, first + count))


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
        assert ones(table.read_dirty(first * PAGE, count * PAGE, clear=action == "query")) == expected
        if action == "query":
            model.dirty.difference_update(run)


@settings(max_examples=120, deadline=None)
@given(OPERATIONS)
def test_the_table_does_what_a_dictionary_of_pages_does(steps: list[tuple[str, int, int, int]]) -> None:
    table, model, backing = IoPageTable(), Model(), memory(SPACE * PAGE)
    table.set_tracking(enable=True)
    for step in steps:
        apply(table, model, backing, step)
    assert ones(table.read_dirty(0, SPACE * PAGE, clear=False)) == sorted(model.dirty)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 63), st.booleans()), max_size=80), st.sampled_from([PAGE, 16 << 10]))
def test_no_write_is_ever_missing_from_the_harvests(steps: list[tuple[int, bool]], leaf: int) -> None:
    """Any interleaving of writes and clearing queries: what was harvested covers every page that was written."""
    table = IoPageTable(leaf)
    table.map(0, 64 * PAGE, memory(64 * PAGE), 0)
    table.set_tracking(enable=True)
    written, harvested = set(), set()
    for page, harvest in steps:
        if harvest:
            harvested.update(ones(table.read_dirty(0, 64 * PAGE, clear=True)))
        else:
            table.write(page * PAGE, b"x")
            written.add(page)
    harvested.update(ones(table.read_dirty(0, 64 * PAGE, clear=True)))
    assert written <= harvested
