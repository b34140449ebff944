"""How faults are recorded, and how software serves them (semantics 4.8)."""

import pytest

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock
from vmm.viommu import registers as reg
from vmm.viommu.faults import Fault, FaultReason, FaultRecorder
from vmm.viommu.intel import VtdConfiguration, VtdUnit
from vmm.viommu.registers import RegisterFile
from vmm.viommu.walk import Translation

ROOT, CONTEXTS = 0x1000, 0x2000
F = 1 << 63


@pytest.fixture
def memory() -> GuestMemory:
    return GuestMemory(RamBlock.create("faults", 1 << 20))


@pytest.fixture
def unit(memory: GuestMemory) -> VtdUnit:
    """A unit that translates, with no device bound."""
    configuration = VtdConfiguration(
        scalable=False, aw_bits=48, caching_mode=True, dma_translation=True, reports_max_iova=True
    )
    made = VtdUnit(memory, configuration, lambda: False)
    memory.write_u64(ROOT, CONTEXTS | 1)
    made.write_register(reg.RTADDR, ROOT)
    made.write_register(reg.GCMD, reg.SRTP)
    made.write_register(reg.GCMD, reg.TE)
    return made


def access(unit: VtdUnit, devfn: int, iova: int, *, write: bool = True) -> Translation | Fault:
    return unit.address_space(devfn).translate(iova, write=write)


def test_a_fault_takes_the_recording_register(unit: VtdUnit) -> None:
    access(unit, 0x18, 0x123456, write=False)
    assert unit.read_register(reg.FRCD_LOW) == 0x123000
    assert unit.read_register(reg.FRCD_HIGH) == F | 1 << 62 | 2 << 32 | 0x18
    assert unit.read_register(reg.FSTS) == reg.FSTS_PPF
    assert unit.faults_recorded == 1


def test_the_same_source_collapses_and_another_overflows(unit: VtdUnit) -> None:
    access(unit, 0x18, 0x1000)
    access(unit, 0x18, 0x2000)
    assert unit.read_register(reg.FSTS) == reg.FSTS_PPF
    access(unit, 0x20, 0x3000)
    assert unit.read_register(reg.FSTS) == reg.FSTS_PPF | reg.FSTS_PFO
    assert unit.read_register(reg.FRCD_LOW) == 0x1000
    unit.write_register(reg.FRCD_HIGH, F)
    access(unit, 0x20, 0x4000)
    assert unit.read_register(reg.FSTS) == reg.FSTS_PFO, "nothing is recorded until the overflow is served"
    unit.write_register(reg.FSTS, reg.FSTS_PFO)
    access(unit, 0x20, 0x5000)
    assert unit.read_register(reg.FRCD_LOW) == 0x5000
    assert unit.faults_recorded == 2


def test_the_record_is_also_served_by_its_top_half(unit: VtdUnit) -> None:
    access(unit, 0x18, 0x1000)
    unit.write_register(reg.FRCD_TOP, 1 << 31)
    assert unit.read_register(reg.FSTS) == 0


@pytest.mark.parametrize("reason", list(FaultReason))
def test_every_reason_has_its_place_in_the_record(reason: FaultReason) -> None:
    registers = RegisterFile(VtdConfiguration(True, 48, True, True, True))
    assert FaultRecorder(registers).record(0x18, 0x5123, write=True, reason=reason)
    assert registers.load(reg.FRCD_HIGH) == F | reason << 32 | 0x18
    assert registers.load(reg.FSTS) >> 8 & 0xFF == 0, "there is one record, with index 0"


def test_which_faults_are_reported_although_processing_is_disabled() -> None:
    unqualified = {reason for reason in FaultReason if Fault(reason, processing_disabled=True).reported}
    assert unqualified == {0x1, 0x8, 0x9, 0xA, 0x20, 0x21, 0x23, 0x25, 0x50, 0x58}
    assert all(Fault(reason).reported for reason in FaultReason)


def test_fault_processing_disabled_leaves_no_record(unit: VtdUnit, memory: GuestMemory) -> None:
    memory.write_u64(CONTEXTS + 0x18 * 16, 2)
    result = access(unit, 0x18, 0x1000)
    assert isinstance(result, Fault)
    assert unit.read_register(reg.FSTS) == 0
    assert unit.faults_recorded == 0


def test_a_masked_event_is_pending_until_software_unmasks_it(unit: VtdUnit) -> None:
    assert unit.read_register(reg.FECTL) == reg.EVENT_MASKED
    access(unit, 0x18, 0x1000)
    assert unit.read_register(reg.FECTL) == reg.EVENT_MASKED | reg.EVENT_PENDING
    unit.write_register(reg.FECTL, 0)
    assert unit.read_register(reg.FECTL) == 0
    unit.write_register(reg.FRCD_HIGH, F)
    access(unit, 0x18, 0x1000)
    assert unit.read_register(reg.FECTL) == 0, "an unmasked event is sent at once"


def test_serving_every_condition_drops_a_pending_event(unit: VtdUnit) -> None:
    access(unit, 0x18, 0x1000)
    unit.write_register(reg.FRCD_HIGH, F)
    assert unit.read_register(reg.FECTL) == reg.EVENT_MASKED


def test_a_device_reaches_everything_while_translation_is_off(unit: VtdUnit) -> None:
    unit.write_register(reg.GCMD, 0)
    result = access(unit, 0x18, 0x123456)
    assert isinstance(result, Translation)
    assert result.translated == 0x123456


def test_capabilities_follow_the_configuration() -> None:
    interrupt_only = VtdConfiguration(
        scalable=True, aw_bits=39, caching_mode=False, dma_translation=False, reports_max_iova=False
    )
    unit = VtdUnit(GuestMemory(RamBlock.create("faults", 1 << 20)), interrupt_only, lambda: False)
    capabilities = unit.read_register(reg.CAP)
    assert capabilities >> 8 & 0x1F == 0
    assert capabilities >> 16 & 0x3F == 38
    assert not capabilities & reg.CAP_CM
    assert capabilities >> 48 & 0x3F == 18
    assert unit.read_register(reg.ECAP) & reg.ECAP_SMTS
    unit.write_register(reg.GCMD, reg.TE)
    assert unit.read_register(reg.GSTS) == 0
    space = unit.address_space(0)
    assert space.max_iova is None
    assert not space.dma_translation


def test_registers_that_are_not_there(unit: VtdUnit) -> None:
    for offset in (-4, 2, 0x230, 1 << 40):
        unit.write_register(offset, 1)
        assert unit.read_register(offset) == (1 << 64) - 1
    unit.write_register(reg.CAP, 0)
    unit.write_register(reg.GSTS, 0)
    assert unit.read_register(reg.CAP)
    assert unit.read_register(reg.GSTS) & reg.TE
