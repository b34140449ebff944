"""The first-stage walk: faults, leaves, accessed and dirty bits, and tables of a hostile guest (semantics 4.7)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import GuestPhysicalAddress
from vmm.memory.ram_block import RamBlock
from vmm.viommu.context import FirstStage
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.first_stage import ACCESSED, DIRTY, FirstStageWalker
from vmm.viommu.walk import Translation

RAM = 1 << 20
ROOT = 0x10000
TABLES = tuple(range(ROOT, ROOT + 0x6000, 0x1000))
P, W, U, PS = 1, 2, 4, 1 << 7
STAGE = FirstStage(ROOT, 2, 0, processing_disabled=False)


@pytest.fixture
def memory() -> GuestMemory:
    made = GuestMemory(RamBlock.create("first", RAM))
    made.log.enabled = True
    return made


def walker(memory: GuestMemory, *, huge: bool = True) -> FirstStageWalker:
    return FirstStageWalker(memory, 48, huge=huge)


def build(memory: GuestMemory, iova: int, leaf: int, *, leaf_level: int = 1) -> list[int]:
    """Write one path of tables to a leaf; return where its entries lie, the top one first."""
    table, places = ROOT, []
    for level in range(4, leaf_level, -1):
        places.append(table + (iova >> 12 + 9 * (level - 1) & 511) * 8)
        memory.write_u64(places[-1], table + 0x1000 | P | W | U)
        table += 0x1000
    places.append(table + (iova >> 12 + 9 * (leaf_level - 1) & 511) * 8)
    memory.write_u64(places[-1], leaf)
    memory.log.swap()
    return places


def reason(result: Translation | Fault) -> int:
    assert isinstance(result, Fault)
    return result.reason


def test_a_read_marks_every_entry_and_a_write_the_leaf(memory: GuestMemory) -> None:
    iova = 0x123456789000
    places = build(memory, iova, 0x5000 | P | W | U)
    walk = walker(memory)
    assert walk.translate(STAGE, iova | 0xABC, write=False) == Translation(
        GuestPhysicalAddress(0x5ABC), 0xFFF, readable=True, writable=True
    )
    assert [memory.read_u64(place) & (ACCESSED | DIRTY) for place in places] == [ACCESSED] * 4
    assert len(list(memory.log.swap().indexes())) == 4
    assert isinstance(walk.translate(STAGE, iova, write=False), Translation)
    assert not memory.log.swap(), "nothing is written that is set already"
    assert isinstance(walk.translate(STAGE, iova, write=True), Translation)
    bits = [memory.read_u64(place) & (ACCESSED | DIRTY) for place in places]
    assert bits == [ACCESSED] * 3 + [ACCESSED | DIRTY]
    assert list(memory.log.swap().indexes()) == [places[-1] >> 12]


@pytest.mark.parametrize("iova", [1 << 47, (1 << 48) - 1, (1 << 64) - (1 << 47) - 1, 1 << 63])
def test_addresses_are_canonical(memory: GuestMemory, iova: int) -> None:
    assert reason(walker(memory).translate(STAGE, iova, write=False)) == FaultReason.NOT_CANONICAL


def test_negative_addresses_use_the_upper_half_of_the_top_table(memory: GuestMemory) -> None:
    build(memory, (1 << 64) - 0x1000, 0x5000 | P | U)
    found = walker(memory).translate(STAGE, (1 << 64) - 1, write=False)
    assert found == Translation(GuestPhysicalAddress(0x5FFF), 0xFFF, readable=True, writable=False)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("entry", "code"), [(W | U, 0x71), (P | W, 0x81), (P | U, 0x85), (P | W | U | 1 << 48, 0x72), (0, 0x71)]
)
def test_faults_at_every_level(memory: GuestMemory, level: int, entry: int, code: int) -> None:
    places = build(memory, 0, 0x5000 | P | W | U)
    place = places[4 - level]
    memory.write_u64(place, memory.read_u64(place) & ~0xFFF | entry)
    assert reason(walker(memory).translate(STAGE, 0, write=True)) == code
    assert memory.read_u64(place) & ACCESSED == 0
    assert all(memory.read_u64(above) & ACCESSED for above in places[: 4 - level])


@pytest.mark.parametrize(
    ("level", "leaf", "huge", "expected"),
    [
        (1, 0x5000 | PS, True, 0x5000),  # PAT
        (1, 0x5000 | 1 << 63 | 1 << 52, True, 0x5000),
        (2, 0x200000 | PS, True, 0x200000),
        (2, 0x201000 | PS, True, 0x200000),  # PAT of a large leaf
        (2, 0x202000 | PS, True, FaultReason.FIRST_STAGE_RESERVED),
        (3, 0x40000000 | PS, True, 0x40000000),
        (3, 0x40000000 | PS, False, FaultReason.FIRST_STAGE_RESERVED),
        (3, 0x40200000 | PS, True, FaultReason.FIRST_STAGE_RESERVED),
        (4, PS, True, FaultReason.FIRST_STAGE_RESERVED),
        (1, 0xFEE01000, True, FaultReason.SCALABLE_INTERRUPT_ADDRESS),
    ],
)
def test_leaves_and_their_reserved_bits(memory: GuestMemory, level: int, leaf: int, huge: bool, expected: int) -> None:
    build(memory, 0, leaf | P | W | U, leaf_level=level)
    found = walker(memory, huge=huge).translate(STAGE, 0x123, write=True)
    if isinstance(expected, FaultReason):
        assert reason(found) == expected
    else:
        assert found == Translation(
            GuestPhysicalAddress(expected + 0x123), (1 << 9 * level + 3) - 1, readable=True, writable=True
        )


def test_tables_outside_ram(memory: GuestMemory) -> None:
    outside = FirstStage(RAM, 2, 0, processing_disabled=True)
    assert walker(memory).translate(outside, 0, write=False) == Fault(
        FaultReason.FIRST_STAGE_TABLE_ACCESS, processing_disabled=True
    )
    memory.write_u64(ROOT, 0x7FFF_FFFF_F000 | P | W | U)
    assert reason(walker(memory).translate(STAGE, 0, write=False)) == FaultReason.FIRST_STAGE_ENTRY_ACCESS


def test_tables_that_point_to_themselves(memory: GuestMemory) -> None:
    memory.words(ROOT, 512)[:] = ROOT | P | W | U
    found = walker(memory).translate(STAGE, 0, write=True)
    assert found == Translation(GuestPhysicalAddress(ROOT), 0xFFF, readable=True, writable=True)
    assert memory.read_u64(ROOT) & DIRTY


def reference(memory: GuestMemory, iova: int, *, write: bool) -> int | tuple[int, int]:
    """Semantics 4.7 as it is written: the fault, or where the address leads and the leaf's mask."""
    table = ROOT
    for level in (4, 3, 2, 1):
        shift = 12 + 9 * (level - 1)
        place = table + 8 * (iova >> shift & 511)
        if place + 8 > RAM:
            return 0x73 if level == 4 else 0x70
        entry = memory.read_u64(place)
        large = level in {2, 3} and entry >> 7 & 1
        if not entry & 1:
            return 0x71
        if not entry >> 2 & 1:
            return 0x81
        if write and not entry >> 1 & 1:
            return 0x85
        low_reserved = range(13, shift) if large else ([7] if level == 4 else [])
        if any(entry >> bit & 1 for bit in (*range(48, 52), *low_reserved)):
            return 0x72
        leaf = level == 1 or large
        memory.write_u64(place, entry | 1 << 5 | (1 << 6 if leaf and write else 0))
        if leaf:
            mask = (1 << shift) - 1
            target = (entry & ((1 << 48) - 1) & ~0xFFF & ~mask) | iova & mask
            return 0x87 if 0xFEE00000 <= target <= 0xFEEFFFFF else (target, mask)
        table = entry & ((1 << 48) - 1) & ~0xFFF
    raise AssertionError


entries = st.one_of(
    st.sampled_from(TABLES).map(lambda table: table | 7),
    st.builds(lambda frame, low: frame << 12 | low, st.integers(0, 1 << 20), st.sampled_from([1, 5, 7, 0x87, 0x67])),
    st.sampled_from([0xFEE00007, 0x40000087, 0x201087, 1 << 50 | 0x5007]),
    st.integers(0, (1 << 64) - 1),
)


@given(st.lists(st.tuples(st.sampled_from(TABLES), st.integers(0, 1), entries), max_size=30))
@settings(max_examples=60)
def test_walks_as_the_reference_does_and_leaves_the_same_bits(contents: list[tuple[int, int, int]]) -> None:
    memory, expected = (GuestMemory(RamBlock.create("first", RAM)) for _ in range(2))
    for table, index, entry in contents:
        memory.write_u64(table + index * 8, entry)
        expected.write_u64(table + index * 8, entry)
    walk = walker(memory)
    for number in range(16):
        iova = sum((number >> level & 1) << 12 + 9 * level for level in range(4))
        for write in (False, True):
            found = walk.translate(STAGE, iova, write=write)
            got = (found.translated, found.mask) if isinstance(found, Translation) else int(found.reason)
            assert got == reference(expected, iova, write=write)
    assert bytes(memory.block.data) == bytes(expected.block.data)


@given(st.integers(0, 1 << 32), st.booleans(), st.booleans())
@settings(max_examples=40)
def test_random_bytes_as_tables_never_raise(seed: int, inside: bool, write: bool) -> None:
    memory = GuestMemory(RamBlock.create("first", RAM))
    random = np.random.default_rng(seed)
    words = random.integers(0, 1 << 64, RAM // 8, dtype=np.uint64)
    memory.words(0, RAM // 8)[:] = words & np.uint64(2 * RAM - 1) | np.uint64(7) if inside else words
    walk = walker(memory)
    for address in random.integers(0, 1 << 47, 30).tolist():
        assert isinstance(walk.translate(STAGE, address, write=write), Translation | Fault)
