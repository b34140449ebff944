"""From a device to its tables: every fault of root, context and PASID structures (semantics 4.5, 4.8)."""

import pytest

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock
from vmm.viommu.context import ContextReader, PassThrough, RootTable, SecondStage
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
        (DIRECTORY, PASIDS, 0x51),
        (DIRECTORY, RAM | 1, 0x58),
        (PASIDS, 2 << 6 | 2 << 2, 0x59),
        (PASIDS, TABLES | 1 << 6 | 2 << 2 | 1, 0x5B),  # first stage
        (PASIDS, TABLES | 3 << 6 | 2 << 2 | 1, 0x5B),  # nested
        (PASIDS, TABLES | 2 << 6 | 3 << 2 | 1, 0x5B),  # five levels
    ],
)
def test_faults_in_scalable_mode(scalable: GuestMemory, place: int, value: int, expected: int) -> None:
    scalable.write_u64(place, value)
    assert fault(scalable, SCALABLE).reason == expected


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
