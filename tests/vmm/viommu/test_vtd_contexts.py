"""From a device to its tables: every fault of root, context and PASID structures (semantics 4.5, 4.8)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock
from vmm.viommu.context import Binding, ContextReader, FirstStage, PassThrough, RootTable, SecondStage
from vmm.viommu.faults import Fault, FaultReason

RAM = 1 << 20
ROOT, CONTEXTS, DIRECTORY, PASIDS, TABLES = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
DEVFN = 0x90
LEGACY = RootTable(ROOT, scalable=False)
SCALABLE = RootTable(ROOT, scalable=True)
LEGACY_ENTRY = CONTEXTS + DEVFN * 16
SCALABLE_ENTRY = CONTEXTS + (DEVFN & 0x7F) * 32


@pytest.fixture
def memory() -> GuestMemory:
    return GuestMemory(RamBlock.create("contexts", RAM))


@pytest.fixture
def legacy(memory: GuestMemory) -> GuestMemory:
    memory.write_u64(ROOT, CONTEXTS | 1)
    memory.write_u64(LEGACY_ENTRY, TABLES | 1)
    memory.write_u64(LEGACY_ENTRY + 8, 7 << 8 | 2)
    return memory


@pytest.fixture
def scalable(memory: GuestMemory) -> GuestMemory:
    memory.write_u64(ROOT + 8, CONTEXTS | 1)
    memory.write_u64(SCALABLE_ENTRY, DIRECTORY | 1)
    memory.write_u64(DIRECTORY, PASIDS | 1)
    memory.write_u64(PASIDS, TABLES | 2 << 6 | 2 << 2 | 1)
    memory.write_u64(PASIDS + 8, 7)
    return memory


def fault(memory: GuestMemory, table: RootTable, aw_bits: int = 48) -> Fault:
    found = ContextReader(memory, aw_bits).look_up(table, DEVFN)
    assert isinstance(found, Fault)
    return found


def test_second_stage_and_pass_through_in_legacy_mode(legacy: GuestMemory) -> None:
    reader = ContextReader(legacy, 48)
    assert reader.look_up(LEGACY, DEVFN) == SecondStage(TABLES, 4, 7, None, processing_disabled=False)
    legacy.write_u64(LEGACY_ENTRY, 2 << 2 | 1)
    assert reader.look_up(LEGACY, DEVFN) == PassThrough(7, None)


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (ROOT, CONTEXTS, 0x1),
        (ROOT, RAM | 1, 0x9),
        (ROOT, CONTEXTS | 3, 0xA),
        (ROOT, 1 << 48 | 1, 0xA),
        (ROOT + 8, 1, 0xA),
        (LEGACY_ENTRY, TABLES, 0x2),
        (LEGACY_ENTRY, TABLES | 1 | 0x10, 0xB),
        (LEGACY_ENTRY + 8, 7 << 8 | 2 | 1 << 7, 0xB),
        (LEGACY_ENTRY + 8, 7 << 8 | 2 | 1 << 24, 0xB),
        (LEGACY_ENTRY + 8, 7 << 8 | 3, 0x3),
        (LEGACY_ENTRY, TABLES | 1 | 1 << 2, 0x3),
        (LEGACY_ENTRY, TABLES | 1 | 3 << 2, 0x3),
    ],
)
def test_faults_in_legacy_mode(legacy: GuestMemory, place: int, value: int, expected: int) -> None:
    legacy.write_u64(place, value)
    assert fault(legacy, LEGACY).reason == expected


def test_four_levels_need_48_bits(legacy: GuestMemory) -> None:
    assert fault(legacy, LEGACY, 39).reason == FaultReason.CONTEXT_INVALID


def test_second_stage_and_pass_through_in_scalable_mode(scalable: GuestMemory) -> None:
    reader = ContextReader(scalable, 48)
    assert reader.look_up(SCALABLE, DEVFN) == SecondStage(TABLES, 4, 7, 0, processing_disabled=False)
    scalable.write_u64(PASIDS, 4 << 6 | 1)
    assert reader.look_up(SCALABLE, DEVFN) == PassThrough(7, 0)
    assert reader.look_up(SCALABLE, DEVFN & 0x7F) == Fault(FaultReason.ROOT_NOT_PRESENT)


def test_requests_without_pasid_use_that_of_the_context(scalable: GuestMemory) -> None:
    scalable.write_u64(SCALABLE_ENTRY + 8, 0x45)
    scalable.write_u64(DIRECTORY + 8, PASIDS + 0x1000 | 1)
    scalable.write_u64(PASIDS + 0x1000 + 5 * 64, 4 << 6 | 1)
    assert ContextReader(scalable, 48).look_up(SCALABLE, DEVFN) == PassThrough(0, 0x45)


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (ROOT + 8, 0, 0x1),
        (ROOT + 8, RAM | 1, 0x9),
        (ROOT, 2, 0xA),
        (SCALABLE_ENTRY, 0, 0x2),
        (SCALABLE_ENTRY, DIRECTORY | 1 | 1 << 5, 0xB),
        (SCALABLE_ENTRY + 8, 1 << 21, 0xB),
        (SCALABLE_ENTRY + 16, 1, 0xB),
        (SCALABLE_ENTRY, RAM | 1, 0x50),
        (SCALABLE_ENTRY + 8, 128 << 6, 0x48),  # beyond 128 directory entries
        (DIRECTORY, PASIDS, 0x51),
        (DIRECTORY, PASIDS | 1 | 1 << 2, 0x52),
        (DIRECTORY, PASIDS | 1 | 1 << 11, 0x52),
        (DIRECTORY, 1 << 48 | 1, 0x52),
        (DIRECTORY, RAM | 1, 0x58),
        (PASIDS, 2 << 6 | 2 << 2, 0x59),
        (PASIDS, TABLES | 1 << 9 | 2 << 6 | 2 << 2 | 1, 0x5A),  # accessed and dirty bits of the second stage
        (PASIDS, 1 << 48 | 2 << 6 | 2 << 2 | 1, 0x5A),
        (PASIDS + 8, 1 << 16, 0x5A),
        (PASIDS + 16, 1 << 1, 0x5A),
        (PASIDS + 16, 1 << 7, 0x5A),
        (PASIDS + 24, 1, 0x5A),
        (PASIDS + 56, 1 << 63, 0x5A),
        (PASIDS, TABLES | 1 << 6 | 2 << 2 | 1, 0x5B),  # first stage
        (PASIDS, TABLES | 5 << 6 | 2 << 2 | 1, 0x5B),
        (PASIDS, TABLES | 7 << 6 | 2 << 2 | 1, 0x5B),
        (PASIDS, TABLES | 2 << 2 | 1, 0x5B),
        (PASIDS, TABLES | 3 << 6 | 2 << 2 | 1, 0x5B),  # nested
        (PASIDS, TABLES | 2 << 6 | 3 << 2 | 1, 0x5B),  # five levels
    ],
)
def test_faults_in_scalable_mode(scalable: GuestMemory, place: int, value: int, expected: int) -> None:
    scalable.write_u64(place, value)
    assert fault(scalable, SCALABLE).reason == expected


def test_the_size_of_the_directory_bounds_the_pasid(scalable: GuestMemory) -> None:
    reader = ContextReader(scalable, 48)
    scalable.write_u64(SCALABLE_ENTRY + 8, 256 << 6)
    scalable.write_u64(DIRECTORY + 256 * 8, PASIDS | 1)
    scalable.write_u64(SCALABLE_ENTRY, DIRECTORY | 1 << 9 | 1)
    assert reader.look_up(SCALABLE, DEVFN) == Fault(FaultReason.RID_PASID)
    scalable.write_u64(SCALABLE_ENTRY, DIRECTORY | 2 << 9 | 1)
    assert reader.look_up(SCALABLE, DEVFN) == SecondStage(TABLES, 4, 7, 256 << 6, processing_disabled=False)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, TABLES | 1 << 5 | 2 << 6 | 2 << 2 | 1), (8, 0xFFFF_FFFF_FF80_0007), (16, 0xDEAD_F07D), (16, 1 << 60)],
)
def test_fields_that_do_not_matter_to_the_second_stage(scalable: GuestMemory, offset: int, value: int) -> None:
    """SLEE, memory types, snoop bits, and the whole of the first stage's but its reserved bits."""
    scalable.write_u64(PASIDS + offset, value)
    found = ContextReader(scalable, 48).look_up(SCALABLE, DEVFN)
    assert found == SecondStage(TABLES, 4, 7, 0, processing_disabled=False)


def first_stage(memory: GuestMemory) -> Binding | Fault:
    return ContextReader(memory, 48, first_stage=True).look_up(SCALABLE, DEVFN)


def test_first_stage(scalable: GuestMemory) -> None:
    scalable.write_u64(PASIDS, 1 << 6 | 1)
    scalable.write_u64(PASIDS + 16, TABLES | 1 << 4)
    assert first_stage(scalable) == FirstStage(TABLES, 7, 0, processing_disabled=False)
    scalable.write_u64(PASIDS + 16, TABLES | 1 << 2)
    assert first_stage(scalable) == Fault(FaultReason.PASID_INVALID), "five levels"
    scalable.write_u64(PASIDS + 16, 1 << 48)
    assert first_stage(scalable) == Fault(FaultReason.PASID_RESERVED)
    scalable.write_u64(PASIDS + 16, 1 << 8)
    assert first_stage(scalable) == Fault(FaultReason.PASID_RESERVED)


@pytest.mark.parametrize("kind", [2, 3])
def test_a_unit_with_first_stage_tables_has_no_others(scalable: GuestMemory, kind: int) -> None:
    scalable.write_u64(PASIDS, TABLES | kind << 6 | 2 << 2 | 1)
    assert first_stage(scalable) == Fault(FaultReason.PASID_INVALID)
    scalable.write_u64(PASIDS, 4 << 6 | 1)
    assert first_stage(scalable) == PassThrough(7, 0)


def test_a_device_tlb_must_be_offered(legacy: GuestMemory) -> None:
    legacy.write_u64(LEGACY_ENTRY, TABLES | 1 << 2 | 1)
    offered = ContextReader(legacy, 48, device_iotlb=True).look_up(LEGACY, DEVFN)
    assert offered == SecondStage(TABLES, 4, 7, None, processing_disabled=False)
    assert fault(legacy, LEGACY).reason == FaultReason.CONTEXT_INVALID


def test_fault_processing_disabled_in_legacy_mode(legacy: GuestMemory) -> None:
    legacy.write_u64(LEGACY_ENTRY, TABLES | 3)
    found = ContextReader(legacy, 48).look_up(LEGACY, DEVFN)
    assert isinstance(found, SecondStage)
    assert found.processing_disabled


words = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.builds(lambda page, low: page << 12 | low, st.integers(0, 0x110), st.integers(0, 0xFFF)),
)


@given(
    st.booleans(),
    st.booleans(),
    st.lists(
        st.tuples(st.sampled_from([ROOT, SCALABLE_ENTRY, LEGACY_ENTRY, DIRECTORY, PASIDS]), st.integers(0, 7), words),
        max_size=4,
    ),
)
@settings(max_examples=150)
def test_a_few_hostile_words_never_raise(mode: bool, first: bool, changes: list[tuple[int, int, int]]) -> None:
    memory = GuestMemory(RamBlock.create("contexts", RAM))
    memory.words(ROOT, 2)[:] = CONTEXTS | 1
    for place, value in ((SCALABLE_ENTRY, DIRECTORY | 1), (DIRECTORY, PASIDS | 1), (PASIDS, TABLES | 2 << 6 | 9)):
        memory.write_u64(place, value)
    for place, index, value in changes:
        memory.write_u64(place + index * 8, value)
    found = ContextReader(memory, 48, first_stage=first).look_up(RootTable(ROOT, scalable=mode), DEVFN)
    assert isinstance(found, Fault | SecondStage | FirstStage | PassThrough)


def test_a_root_table_outside_ram() -> None:
    memory = GuestMemory(RamBlock.create("contexts", RAM))
    assert fault(memory, RootTable(RAM, scalable=False)).reason == FaultReason.ROOT_TABLE_ACCESS


@pytest.mark.parametrize("place", [SCALABLE_ENTRY, DIRECTORY, PASIDS])
def test_fault_processing_is_disabled_at_any_level(scalable: GuestMemory, place: int) -> None:
    scalable.write_u64(place, scalable.read_u64(place) | 2)
    scalable.write_u64(PASIDS, scalable.read_u64(PASIDS) & ~1)
    found = fault(scalable, SCALABLE)
    assert found == Fault(FaultReason.PASID_NOT_PRESENT, processing_disabled=True)
    assert not found.reported


def test_faults_before_the_context_entry_are_always_reported() -> None:
    assert Fault(FaultReason.ROOT_NOT_PRESENT, processing_disabled=True).reported
