"""Requests through structures, caches and walks together: what is stale, until when, and what a hostile guest gets."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import GuestPhysicalAddress
from vmm.memory.ram_block import RamBlock
from vmm.viommu.context import FirstStage, PassThrough, RootTable, SecondStage
from vmm.viommu.errors import UnsupportedConfiguration
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.first_stage import DIRTY
from vmm.viommu.iotlb import CAPACITY
from vmm.viommu.registers import VtdConfiguration
from vmm.viommu.translation import Translator
from vmm.viommu.walk import Translation

RAM = 1 << 20
DEVFN = 0x18
ROOT, CONTEXTS, DIRECTORY, PASIDS, TABLES = 0x1000, 0x2000, 0x3000, 0x4000, 0x10000
LEAVES = TABLES + 0x3000
DOMAIN = 7
CONFIGURATION = VtdConfiguration(
    scalable=True, aw_bits=48, caching_mode=True, dma_translation=True, reports_max_iova=True
)


class Guest:
    """One device's structures, and four levels of tables for the first 2 MiB of its addresses."""

    def __init__(self, *, scalable: bool, first_stage: bool = False) -> None:
        self.memory = GuestMemory(RamBlock.create("translator", RAM))
        self.root = RootTable(ROOT, scalable=scalable)
        self.translator = Translator(self.memory, replace(CONFIGURATION, first_stage=first_stage))
        self.user = 4 if first_stage else 0
        self.entry = CONTEXTS + DEVFN * (32 if scalable else 16)
        write = self.memory.write_u64
        write(ROOT, CONTEXTS | 1)
        if scalable:
            write(self.entry, DIRECTORY | 1)
            write(DIRECTORY, PASIDS | 1)
            write(PASIDS, 1 << 6 | 1 if first_stage else TABLES | 2 << 6 | 2 << 2 | 1)
            write(PASIDS + 8, DOMAIN)
            write(PASIDS + 16, TABLES if first_stage else 0)
        else:
            write(self.entry, TABLES | 1)
            write(self.entry + 8, DOMAIN << 8 | 2)
        for level in range(3):
            write(TABLES + level * 0x1000, TABLES + (level + 1) * 0x1000 | 3 | self.user)

    def map(self, page: int, translated: int, permission: int = 3) -> None:
        self.memory.write_u64(LEAVES + page * 8, translated | permission | self.user)

    def unmap(self, page: int) -> None:
        self.memory.write_u64(LEAVES + page * 8, 0)

    def access(self, page: int, *, write: bool = True) -> int:
        """Return where the first byte of a page leads, or minus the fault."""
        found = self.translator.translate(self.root, DEVFN, page << 12, write=write)
        return found.translated if isinstance(found, Translation) else -found.reason


@pytest.fixture(params=[False, True], ids=["legacy", "scalable"])
def guest(request: pytest.FixtureRequest) -> Guest:
    scalable: bool = request.param
    return Guest(scalable=scalable)


def test_translation_off_is_identity(guest: Guest) -> None:
    found = guest.translator.translate(None, DEVFN, 0x12345, write=True)
    assert found == Translation(GuestPhysicalAddress(0x12345), 0xFFF, readable=True, writable=True)


def test_a_translation_holds_until_it_is_invalidated(guest: Guest) -> None:
    guest.map(1, 0x5000)
    assert guest.access(1) == 0x5000
    guest.unmap(1)
    assert guest.access(1) == 0x5000, "stale, as hardware's"
    guest.translator.invalidate_iotlb(DOMAIN + 1)
    guest.translator.invalidate_iotlb(DOMAIN, None, (0x2000, 0x2FFF))
    assert guest.access(1) == 0x5000
    guest.translator.invalidate_iotlb(DOMAIN, None, (0x1000, 0x1FFF))
    assert guest.access(1) == -FaultReason.WRITE_PERMISSION


def test_faults_are_not_remembered(guest: Guest) -> None:
    assert guest.access(1) == -FaultReason.WRITE_PERMISSION
    guest.map(1, 0x5000)
    assert guest.access(1) == 0x5000


def test_permissions_are_remembered_with_the_leaf(guest: Guest) -> None:
    guest.map(1, 0x5000, 1)
    assert guest.access(1, write=False) == 0x5000
    guest.map(1, 0x5000, 3)
    assert guest.access(1) == -FaultReason.WRITE_PERMISSION
    guest.translator.invalidate_iotlb()
    assert guest.access(1) == 0x5000


def test_fault_processing_disabled_is_remembered_too(guest: Guest) -> None:
    guest.memory.write_u64(guest.entry, guest.memory.read_u64(guest.entry) | 2)
    guest.map(1, 0x5000, 1)
    assert guest.access(1, write=False) == 0x5000
    found = guest.translator.translate(guest.root, DEVFN, 0x1000, write=True)
    assert found == Fault(FaultReason.WRITE_PERMISSION, processing_disabled=True)


def test_another_table_is_used_once_context_and_translations_are_invalidated(guest: Guest) -> None:
    other = TABLES + 0x4000
    guest.memory.write_u64(other, TABLES + 0x1000 | 1)
    guest.map(1, 0x5000)
    assert guest.access(1) == 0x5000
    place = PASIDS if guest.root.scalable else guest.entry
    guest.memory.write_u64(place, guest.memory.read_u64(place) & 0xFFF | other)
    guest.translator.invalidate_iotlb()
    assert guest.access(1) == 0x5000, "the binding is remembered"
    if guest.root.scalable:
        guest.translator.invalidate_pasids(DOMAIN, 0)
    else:
        guest.translator.invalidate_device(DEVFN)
    assert guest.access(1) == 0x5000, "the translation is remembered"
    guest.translator.invalidate_iotlb()
    assert guest.access(1) == -FaultReason.WRITE_PERMISSION, "a read-only path"


def test_a_blocked_device_is_blocked_by_the_caches_that_come_first(guest: Guest) -> None:
    guest.map(1, 0x5000)
    assert guest.access(1) == 0x5000
    guest.memory.write_u64(guest.entry, 0)
    assert guest.access(1) == 0x5000
    guest.translator.invalidate_device(DEVFN)
    assert guest.access(2) == -FaultReason.CONTEXT_NOT_PRESENT
    # In legacy mode the IOTLB is asked first, and needs no context.
    assert guest.access(1) == (-FaultReason.CONTEXT_NOT_PRESENT if guest.root.scalable else 0x5000)
    guest.translator.invalidate_iotlb(DOMAIN)
    assert guest.access(1) == -FaultReason.CONTEXT_NOT_PRESENT


def test_pass_through_is_never_in_the_iotlb(guest: Guest) -> None:
    guest.map(1, 0x5000)
    if guest.root.scalable:
        guest.memory.write_u64(PASIDS, 4 << 6 | 1)
    else:
        guest.memory.write_u64(guest.entry, 2 << 2 | 1)
    assert guest.access(1) == 0x1000
    assert isinstance(guest.translator.look_up(guest.root, DEVFN), PassThrough)
    if guest.root.scalable:
        guest.memory.write_u64(PASIDS, TABLES | 2 << 6 | 2 << 2 | 1)
    else:
        guest.memory.write_u64(guest.entry, TABLES | 1)
    assert isinstance(guest.translator.look_up(guest.root, DEVFN), SecondStage), "looked up past the caches"
    assert guest.access(1) == 0x1000, "the binding is remembered"
    guest.translator.invalidate_contexts()
    assert guest.access(1) == 0x5000, "no translation was"


def test_reset_forgets_everything(guest: Guest) -> None:
    guest.map(1, 0x5000)
    assert guest.access(1) == 0x5000
    guest.memory.write_u64(ROOT, 0)
    assert guest.access(1) == 0x5000
    guest.translator.reset()
    assert guest.access(1) == -FaultReason.ROOT_NOT_PRESENT


def test_leaves_around_the_interrupt_range_are_not_remembered(guest: Guest) -> None:
    """A large leaf may lead beside the range at one address and into it at the next."""
    guest.memory.write_u64(TABLES + 0x1000 + 8, 0xC000_0000 | 0x83)
    inside = (1 << 30 | 0x3EE0_0000) >> 12
    assert guest.access(1 << 18) == 0xC000_0000
    expected = FaultReason.SCALABLE_INTERRUPT_ADDRESS if guest.root.scalable else FaultReason.INTERRUPT_ADDRESS
    assert guest.access(inside) == -expected
    assert guest.access(1 << 18) == 0xC000_0000
    assert len(guest.translator._iotlb) == 0


def test_a_device_that_touches_everything_keeps_the_iotlb_small(guest: Guest) -> None:
    guest.memory.words(LEAVES, 512)[:] = np.arange(512, dtype=np.uint64) << np.uint64(12) | np.uint64(3)
    guest.memory.write_u64(TABLES + 0x2000 + 8, LEAVES | 3)
    guest.memory.write_u64(TABLES + 0x2000 + 16, LEAVES | 3)
    for page in range(3 * 512):
        assert guest.access(page) == (page % 512) << 12
        assert len(guest.translator._iotlb) <= CAPACITY
    assert len(guest.translator._iotlb) == 512


def test_a_first_write_sets_the_dirty_bit_although_a_read_was_remembered() -> None:
    guest = Guest(scalable=True, first_stage=True)
    assert guest.translator.look_up(guest.root, DEVFN) == FirstStage(TABLES, DOMAIN, 0, False)
    guest.map(1, 0x5000)
    assert guest.access(1, write=False) == 0x5000
    assert not guest.memory.read_u64(LEAVES + 8) & DIRTY
    assert guest.access(1) == 0x5000
    assert guest.memory.read_u64(LEAVES + 8) & DIRTY
    guest.memory.write_u64(LEAVES + 8, 0)
    assert guest.access(1) == guest.access(1, write=False) == 0x5000, "now it is remembered for both"
    guest.translator.invalidate_iotlb(DOMAIN, 0, (0x1000, 0x1FFF))
    assert guest.access(1) == -FaultReason.FIRST_STAGE_NOT_PRESENT


def test_the_unit_refuses_a_configuration_that_does_not_exist() -> None:
    memory = GuestMemory(RamBlock.create("translator", RAM))
    with pytest.raises(UnsupportedConfiguration):
        Translator(memory, replace(CONFIGURATION, aw_bits=57))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["map", "unmap", "read", "write", "write", "invalidate", "domain", "batch"]),
            st.integers(0, 7),
            st.integers(1, 15),
            st.sampled_from([1, 2, 3]),
        ),
        max_size=40,
    ),
    st.booleans(),
)
@settings(max_examples=60)
def test_exactly_what_was_used_since_its_invalidation_is_stale(
    steps: list[tuple[str, int, int, int]], scalable: bool
) -> None:
    guest = Guest(scalable=scalable)
    tables: dict[int, tuple[int, int]] = {}
    remembered: dict[int, tuple[int, int]] = {}
    for action, page, frame, permission in steps:
        match action:
            case "map":
                tables[page] = (frame << 12, permission)
                guest.map(page, frame << 12, permission)
            case "unmap":
                tables.pop(page, None)
                guest.unmap(page)
            case "invalidate":
                remembered.pop(page, None)
                guest.translator.invalidate_iotlb(DOMAIN, None, (page << 12, (page << 12) + 0xFFF))
            case "domain":
                remembered.clear()
                guest.translator.invalidate_iotlb(DOMAIN)
            case "batch":
                binding = guest.translator.look_up(guest.root, DEVFN)
                assert isinstance(binding, SecondStage)
                iovas = np.arange(8, dtype=np.uint64) << np.uint64(12)
                found = guest.translator.translate_batch(binding, iovas, write=False)
                expected = [tables.get(number, (0, 0)) for number in range(8)]
                assert found.reasons.tolist() == [0 if allowed & 1 else 6 for _, allowed in expected]
            case _:
                needed = 2 if action == "write" else 1
                target, allowed = remembered.get(page) or tables.get(page, (0, 0))
                if allowed & needed:
                    remembered[page] = (target, allowed)
                    assert guest.access(page, write=needed == 2) == target
                else:
                    assert guest.access(page, write=needed == 2) == (-5 if needed == 2 else -6)


@given(st.integers(0, 1 << 32), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=80)
def test_random_bytes_as_structures_never_raise(seed: int, inside: bool, scalable: bool, first_stage: bool) -> None:
    memory = GuestMemory(RamBlock.create("translator", 1 << 16))
    random = np.random.default_rng(seed)
    words = random.integers(0, 1 << 64, 1 << 13, dtype=np.uint64)
    kept = np.uint64((0x1_F001, 0x1_F003, 0x1_F087)[seed % 3])
    memory.words(0, 1 << 13)[:] = words & kept | np.uint64(1) if inside else words
    translator = Translator(memory, replace(CONFIGURATION, scalable=True, first_stage=first_stage))
    root = RootTable(int(words[0]) & 0x1_F000, scalable=scalable)
    for devfn in random.integers(0, 256, 30).tolist():
        for iova in random.integers(0, 1 << 64, 3, dtype=np.uint64).tolist():
            for address in (iova, iova & 0x7FFF_FFFF_F000):
                found = translator.translate(root, devfn, address, write=bool(iova & 1))
                assert isinstance(found, Translation | Fault)
        binding = translator.look_up(root, devfn)
        if isinstance(binding, SecondStage):
            assert len(translator.walker.mappings(binding, 0, 1 << 30)) <= 1 << 18
