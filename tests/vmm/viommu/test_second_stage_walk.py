"""The second-stage walk against a reference written from semantics 4.6, on tables that may be hostile."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.memory.ram_block import RamBlock
from vmm.viommu.context import SecondStage
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.walk import MAPPINGS_LIMIT, TABLES_LIMIT, SecondStageWalker, Translation

RAM = 1 << 20
ROOT = 0x10000
TABLES = tuple(range(ROOT, ROOT + 0x6000, 0x1000))


@pytest.fixture
def memory() -> GuestMemory:
    return GuestMemory(RamBlock.create("walk", RAM))


def stage(levels: int = 4, *, pasid: int | None = None) -> SecondStage:
    return SecondStage(ROOT, levels, 2, pasid, processing_disabled=False)


def reason(result: Translation | Fault) -> int:
    assert isinstance(result, Fault)
    return result.reason


def build(memory: GuestMemory, iova: int, leaf: int, *, levels: int = 4, leaf_level: int = 1) -> int:
    """Write one path of tables to a leaf; return where the leaf's entry lies."""
    table = ROOT
    for level in range(levels, leaf_level, -1):
        memory.write_u64(table + (iova >> 12 + 9 * (level - 1) & 511) * 8, table + 0x1000 | 3)
        table += 0x1000
    place = table + (iova >> 12 + 9 * (leaf_level - 1) & 511) * 8
    memory.write_u64(place, leaf)
    return place


def test_worked_vector_of_the_indexes(memory: GuestMemory) -> None:
    for number, index in enumerate((0x24, 0xD1, 0xB3)):
        memory.write_u64(TABLES[number] + index * 8, TABLES[number + 1] | 3)
    memory.write_u64(TABLES[3] + 0x189 * 8, 0x42000 | 3)
    walked = SecondStageWalker(memory, 48, scalable=False).translate(stage(), 0x123456789000, write=True)
    assert isinstance(walked, Translation)
    assert (walked.translated, walked.mask) == (0x42000, 0xFFF)


def test_worked_vector_of_the_width(memory: GuestMemory) -> None:
    walker = SecondStageWalker(memory, 48, scalable=False)
    assert reason(walker.translate(stage(3), 0x8000000000, write=False)) == 4
    assert reason(walker.translate(stage(3), 0x7FFFFFFFFF, write=False)) == 6
    build(memory, 0x7FFFFFF000, 0x5000 | 3, levels=3)
    walked = walker.translate(stage(3), 0x7FFFFFFFFF, write=False)
    assert isinstance(walked, Translation)
    assert walked.translated == 0x5FFF


@pytest.mark.parametrize(
    ("level", "leaf", "scalable", "expected"),
    [
        (1, 0x5000 | 3 | 1 << 11, False, 0xC),  # SNP
        (1, 0x5000 | 3 | 1 << 11, True, None),
        (1, 0x5000 | 3 | 1 << 52, False, None),
        (1, 0x5000 | 3 | 1 << 63, False, None),
        (1, 0x5000 | 3 | 1 << 62, False, 0xC),  # TM, without a device TLB
        (1, 0x5000 | 3 | 1 << 48, False, 0xC),  # beyond the host's width
        (1, 0x5000 | 3 | 1 << 7, False, None),  # ignored in a 4 KiB leaf
        (2, 0x200000 | 3 | 1 << 7, False, None),
        (2, 0x201000 | 3 | 1 << 7, False, 0xC),
        (2, 0x300000 | 3 | 1 << 7, False, 0xC),  # bit 20, the highest below a leaf's size
        (3, 0x40000000 | 3 | 1 << 7, False, None),
        (3, 0x40200000 | 3 | 1 << 7, False, 0xC),
        (3, 0x60000000 | 3 | 1 << 7, False, 0xC),  # bit 29
        (4, 3 | 1 << 7, False, 0xC),
    ],
)
def test_reserved_bits(memory: GuestMemory, level: int, leaf: int, scalable: bool, expected: int | None) -> None:
    build(memory, 0, leaf, leaf_level=level)
    walker = SecondStageWalker(memory, 48, scalable=scalable)
    walked = walker.translate(stage(), 0x123, write=True)
    found = walker.mappings(stage(), 0, 0xFFF)
    if expected is None:
        assert isinstance(walked, Translation)
        assert walked.translated == (leaf & 0xFFFF_FFFF_F000) + 0x123
        assert [record.iova for record in found] == [0]
    else:
        assert reason(walked) == expected
        assert found == []


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_old_tm_bit_is_allowed_in_leaves_only_where_the_unit_says_so(memory: GuestMemory, level: int) -> None:
    place = build(memory, 0, 1 << 62 | 3 | 1 << 7, leaf_level=level)
    old = SecondStageWalker(memory, 48, scalable=False, transient=True)
    assert isinstance(old.translate(stage(), 0, write=True), Translation)
    assert reason(SecondStageWalker(memory, 48, scalable=False).translate(stage(), 0, write=True)) == 0xC
    if level > 1:
        memory.write_u64(place, 1 << 62 | 3 | TABLES[5])
        assert reason(old.translate(stage(), 0, write=True)) == 0xC


def test_snoop_control_allows_snp_in_legacy_mode(memory: GuestMemory) -> None:
    build(memory, 0, 1 << 11 | 0x5003)
    walker = SecondStageWalker(memory, 48, scalable=False, snoop_control=True)
    assert isinstance(walker.translate(stage(), 0, write=True), Translation)
    memory.write_u64(ROOT, memory.read_u64(ROOT) | 1 << 11)
    assert reason(walker.translate(stage(), 0, write=True)) == 0xC, "but never in an entry that names a table"


def test_the_address_in_an_entry_that_no_longer_maps(memory: GuestMemory) -> None:
    walker = SecondStageWalker(memory, 48, scalable=False)
    place = build(memory, 0x5000, 0x9000 | 3)
    assert walker.address_in(stage(), 0x5123) == 0x9000
    memory.write_u64(place, 0x9000)
    assert walker.address_in(stage(), 0x5123) == 0x9000
    memory.write_u64(place, 0)
    assert walker.address_in(stage(), 0x5123) == 0
    memory.write_u64(TABLES[2], RAM | 3)
    assert walker.address_in(stage(), 0x5123) == 0, "no entry at all"


def test_permissions_are_those_of_every_level(memory: GuestMemory) -> None:
    place = build(memory, 0, 0x5000 | 1)
    walker = SecondStageWalker(memory, 48, scalable=False)
    assert isinstance(walker.translate(stage(), 0, write=False), Translation)
    assert reason(walker.translate(stage(), 0, write=True)) == FaultReason.WRITE_PERMISSION
    memory.write_u64(place, 0x5000 | 3)
    memory.write_u64(TABLES[1], TABLES[2] | 2)
    assert reason(walker.translate(stage(), 0, write=False)) == FaultReason.READ_PERMISSION
    assert [record.permission for record in walker.mappings(stage(), 0, 0xFFF)] == [2]


def test_tables_outside_ram(memory: GuestMemory) -> None:
    walker = SecondStageWalker(memory, 48, scalable=False)
    outside = SecondStage(RAM, 4, 2, None, processing_disabled=True)
    assert walker.translate(outside, 0, write=False) == Fault(FaultReason.CONTEXT_INVALID, processing_disabled=True)
    memory.write_u64(ROOT, 0x7FFF_FFFF_F000 | 3)
    assert reason(walker.translate(stage(), 0, write=False)) == 7
    assert walker.mappings(stage(), 0, (1 << 48) - 1) == walker.mappings(outside, 0, (1 << 48) - 1) == []


@pytest.mark.parametrize(("pasid", "code"), [(None, 0xE), (0, 0x87)])
def test_nothing_leads_to_the_interrupt_range(memory: GuestMemory, pasid: int | None, code: int) -> None:
    build(memory, 0x1000, 0xFEE01000 | 3)
    walker = SecondStageWalker(memory, 48, scalable=False)
    assert reason(walker.translate(stage(pasid=pasid), 0x1000, write=True)) == code


def test_tables_that_point_to_themselves_are_walked_within_bounds(memory: GuestMemory) -> None:
    memory.words(ROOT, 512)[:] = ROOT | 3
    walker = SecondStageWalker(memory, 48, scalable=False)
    found = walker.mappings(stage(), 0, (1 << 48) - 1)
    assert walker.walks_cut == 1
    assert len(found) <= MAPPINGS_LIMIT + 512
    assert walker.tables_read <= TABLES_LIMIT
    assert len(walker.mappings(stage(), 0x5000, 0x5FFF)) == 1


def reference(memory: GuestMemory, levels: int, iova: int, *, write: bool) -> int | tuple[int, int]:
    """Semantics 4.6 as it is written: the fault, or where the address leads and the leaf's mask."""
    table, allowed = ROOT, 3
    for level in range(levels, 0, -1):
        shift = 12 + 9 * (level - 1)
        try:
            entry = memory.read_u64(table + 8 * (iova >> shift & 511))
        except AccessFault:
            return 3 if level == levels else 7
        allowed &= entry
        if not allowed & (2 if write else 1):
            return 5 if write else 6
        large = level in {2, 3} and entry >> 7 & 1
        for bit in range(64):
            reserved = 39 <= bit <= 51 or bit in {11, 62} or (level == 4 and bit == 7)
            if entry >> bit & 1 and (reserved or (large and 12 <= bit < shift)):
                return 0xC
        if level == 1 or large:
            mask = (1 << shift) - 1
            target = (entry & ((1 << 39) - 1) & ~0xFFF & ~mask) | iova & mask
            return 0xE if 0xFEE00000 <= target <= 0xFEEFFFFF else (target, mask)
        table = entry & ((1 << 39) - 1) & ~0xFFF
    raise AssertionError


entries = st.one_of(
    st.sampled_from(TABLES).map(lambda table: table | 3),
    st.builds(
        lambda frame, low: frame << 12 | low, st.integers(0, 1 << 20), st.sampled_from([0, 1, 2, 3, 0x83, 0x803])
    ),
    st.sampled_from([0xFEE00003, 0x40000083, 0x200083, 1 << 62 | 0x5003, 1 << 63 | 0x5003, 1 << 40 | 3]),
    st.integers(0, (1 << 64) - 1),
)
tables = st.lists(st.tuples(st.sampled_from(TABLES), st.integers(0, 3), entries), max_size=40)


def addresses(levels: int) -> Iterator[int]:
    for number in range(4**levels):
        iova = 0
        for level in range(levels):
            iova |= (number >> 2 * level & 3) << 12 + 9 * level
        yield iova


@given(tables)
@settings(max_examples=60)
def test_walks_as_the_reference_does(contents: list[tuple[int, int, int]]) -> None:
    memory = GuestMemory(RamBlock.create("walk", RAM))
    for table, index, entry in contents:
        memory.write_u64(table + index * 8, entry)
    walker = SecondStageWalker(memory, 39, scalable=False)
    found = walker.mappings(stage(3), 0, (1 << 39) - 1)
    assert all(record.last < after.iova for record, after in pairwise(found))
    for iova in addresses(3):
        for write in (False, True):
            expected = reference(memory, 3, iova, write=write)
            walked = walker.translate(stage(3), iova, write=write)
            got = (walked.translated, walked.mask) if isinstance(walked, Translation) else int(walked.reason)
            assert got == expected
            if isinstance(expected, tuple):
                leaf = next(record for record in found if record.iova <= iova <= record.last)
                assert (leaf.translated + iova - leaf.iova, leaf.size) == expected
                assert leaf.permission & (2 if write else 1)
                assert walker.mappings(stage(3), iova, iova + 0xFFF)[0] == leaf
