"""Register protocol: commands and their status, invalidation without a queue, events as messages (semantics 4.4)."""

import pytest

from tests.vmm.viommu.bare_unit import CONTEXTS, QUEUE, RAM, STATUS, BareUnit, Recorder
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock
from vmm.viommu import registers as reg
from vmm.viommu.errors import UnsupportedConfiguration
from vmm.viommu.events import IommuEvent
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.intel import VtdConfiguration, VtdUnit
from vmm.viommu.interrupt_remapping import InterruptMessage

A = 0x18
WAIT_EVENT = 5 | 1 << 4
MESSAGE, DATA = 0xFEE01000, 0x41
GRANULARITIES = [0, 1, 2, 3]


def status(bare: BareUnit) -> int:
    return bare.unit.read_register(reg.GSTS)


def in_domain_five() -> tuple[BareUnit, int]:
    """Device A has one mapping; the queue is off."""
    bare = BareUnit()
    bare.follow(A)
    bare.enable()
    bare.post((5 | 1 << 6, 0))
    bare.unit.write_register(reg.GCMD, reg.TE)
    root = bare.page()
    bare.map(root, 0x1000, 0xA000 | 3)
    bare.bind(A, 5, root)
    bare.log.clear()
    return bare, root


@pytest.mark.parametrize("bit", [reg.TE, reg.QIE, reg.IRE])
def test_what_is_on_stays_on_while_each_command_repeats_it(bit: int) -> None:
    bare = BareUnit()
    bare.unit.write_register(reg.GCMD, bit)
    assert status(bare) == bit
    bare.unit.write_register(reg.GCMD, bit | reg.SRTP)
    assert status(bare) == bit | reg.SRTP
    bare.unit.write_register(reg.GCMD, bit | reg.SIRTP)
    assert status(bare) == bit | reg.SRTP | reg.SIRTP, "a set table stays set"
    bare.unit.write_register(reg.GCMD, 0)
    on = reg.QIE if bit == reg.QIE else 0
    assert status(bare) == on | reg.SRTP | reg.SIRTP, "a queue stops only after a wait"


def test_commands_for_what_the_unit_does_not_offer_are_ignored() -> None:
    bare = BareUnit()
    bare.unit.write_register(reg.GCMD, reg.SFL | reg.EAFL | reg.WBF | reg.CFI)
    assert status(bare) == 0
    assert bare.unit.read_register(reg.GCMD) == 0, "it is for writing only"


def test_a_queue_stops_only_when_it_is_empty_and_ended_in_a_wait() -> None:
    bare = BareUnit()
    bare.enable()
    bare.post((2 | 1 << 4, 0))
    bare.unit.write_register(reg.GCMD, reg.TE)
    assert status(bare) & reg.QIE
    bare.post((5 | 1 << 6, 0))
    bare.unit.write_register(reg.GCMD, reg.TE)
    assert not status(bare) & reg.QIE
    assert bare.unit.read_register(reg.IQH) == 0
    bare.unit.write_register(reg.IQT, 0)
    bare.unit.write_register(reg.GCMD, reg.TE | reg.QIE)
    assert status(bare) & reg.QIE


def test_a_tail_written_before_the_queue_is_on_is_followed_then() -> None:
    bare = BareUnit()
    bare.write(QUEUE, 5 | 1 << 5 | 77 << 32, STATUS)
    bare.unit.write_register(reg.IQA, QUEUE)
    bare.unit.write_register(reg.IQT, 1 << 4)
    assert bare.memory.read_u64(STATUS) == 0
    bare.unit.write_register(reg.GCMD, reg.QIE)
    assert bare.memory.read_u64(STATUS) == 77


@pytest.mark.parametrize("on", [False, True])
def test_a_tail_between_wide_descriptors_is_an_error(on: bool) -> None:
    bare = BareUnit(scalable=True)
    if on:
        bare.enable()
    else:
        bare.unit.write_register(reg.IQA, QUEUE | reg.IQA_DW)
    bare.unit.write_register(reg.IQT, 0x30)
    assert bare.unit.read_register(reg.FSTS) == reg.FSTS_IQE


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_contexts_are_invalidated_by_register(granularity: int, halves: bool) -> None:
    bare, _ = in_domain_five()
    value = reg.CCMD_ICC | granularity << 61 | A << 16 | 9
    if halves:
        bare.unit.write_register(reg.CCMD, value & 0xFFFF_FFFF)
        assert bare.log == []
        bare.unit.write_register(reg.CCMD_TOP, value >> 32)
    else:
        bare.unit.write_register(reg.CCMD, value)
    found = bare.unit.read_register(reg.CCMD)
    assert not found & reg.CCMD_ICC
    assert found >> 59 & 3 == (0, 1, 1, 3)[granularity], "domain-selective is served as global"
    assert [entry for entry in bare.log if entry[0] == "map"] == [("map", 0x1000, 0xFFF, 0xA000)] * (granularity > 0)


@pytest.mark.parametrize(
    ("granularity", "domain_id", "address", "served", "followed"),
    [
        (0, 5, 0x1000, 0, False),
        (1, 9, 0, 1, True),
        (2, 5, 0, 2, True),
        (2, 9, 0, 2, False),
        (3, 5, 0x1000, 3, True),
        (3, 5, 0x2000, 3, False),
        (3, 5, 0x3000 | 2, 3, True),
        (3, 9, 0x1000, 3, False),
        (3, 5, 0x1000 | 19, 0, False),
    ],
)
def test_translations_are_invalidated_by_register(
    granularity: int, domain_id: int, address: int, served: int, followed: bool
) -> None:
    bare, root = in_domain_five()
    bare.unit.write_register(reg.CCMD, reg.CCMD_ICC | 3 << 61 | A << 16)
    bare.map(root, 0x1000, 0xB000 | 3)
    bare.log.clear()
    bare.unit.write_register(reg.IVA, address)
    bare.unit.write_register(reg.IOTLB, reg.IOTLB_IVT | granularity << 60 | domain_id << 32)
    found = bare.unit.read_register(reg.IOTLB)
    assert not found & reg.IOTLB_IVT
    assert found >> 57 & 3 == served
    changed = [("unmap", 0x1000, 0xFFF, 0xA000), ("map", 0x1000, 0xFFF, 0xB000)]
    assert bare.log == (changed if followed else [])


def test_registers_do_not_invalidate_while_the_queue_is_on() -> None:
    bare, _ = in_domain_five()
    bare.unit.write_register(reg.IQT, 0)
    bare.unit.write_register(reg.GCMD, reg.TE | reg.QIE)
    bare.unit.write_register(reg.CCMD, reg.CCMD_ICC | 1 << 61)
    bare.unit.write_register(reg.IOTLB, reg.IOTLB_IVT | 1 << 60)
    assert bare.log == []
    assert bare.unit.read_register(reg.CCMD) == reg.CCMD_ICC | 1 << 61, "the request is never taken up"
    assert bare.unit.read_register(reg.IOTLB) == reg.IOTLB_IVT | 1 << 60


def test_a_device_keeps_its_translations_until_they_are_invalidated() -> None:
    bare, root = in_domain_five()
    bare.unit.write_register(reg.CCMD, reg.CCMD_ICC | 3 << 61 | A << 16)
    space = bare.unit.address_space(A)
    place = bare.map(root, 0x1000, 0xA000 | 3)
    before = space.translate(0x1234, write=True)
    assert not isinstance(before, Fault)
    assert before.translated == 0xA234
    bare.write(place, 0xB000 | 3)
    bare.bind(A, 6, root)
    assert space.translate(0x1234, write=True) == before, "what is cached holds"
    bare.unit.write_register(reg.IOTLB, reg.IOTLB_IVT | 2 << 60 | 5 << 32)
    after = space.translate(0x1234, write=True)
    assert not isinstance(after, Fault)
    assert after.translated == 0xB234
    bare.write(CONTEXTS + A * 16, 0)
    bare.unit.write_register(reg.GCMD, reg.TE | reg.SRTP)
    blocked = space.translate(0x1234, write=True)
    assert isinstance(blocked, Fault)
    assert blocked.reason is FaultReason.CONTEXT_NOT_PRESENT


FORGET_CONTEXT = {
    "device": (1 | 3 << 4 | A << 32, 0),
    "function": (1 | 3 << 4 | (A ^ 4) << 32 | 1 << 48, 0),
    "global": (1 | 1 << 4, 0),
    "pasid": (7 | 1 << 4 | 5 << 16, 0),
    "pasids": (7 | 3 << 4, 0),
}


@pytest.mark.parametrize("forget", [*FORGET_CONTEXT])
@pytest.mark.parametrize("scalable", [False, True], ids=["legacy", "scalable"])
def test_a_device_keeps_its_binding_until_it_is_invalidated(scalable: bool, forget: str) -> None:
    if forget.startswith("pasid") and not scalable:
        return
    bare = BareUnit(scalable=scalable)
    bare.enable()
    space, old, new = bare.unit.address_space(A), bare.page(), bare.page()
    for iova in (0x1000, 0x2000, 0x3000):
        bare.map(old, iova, 0xA000 | 3)
        bare.map(new, iova, 0xB000 | 3)

    def reaches(iova: int) -> int:
        found = space.translate(iova, write=False)
        assert not isinstance(found, Fault)
        return found.translated

    bare.bind(A, 5, old)
    assert reaches(0x1000) == 0xA000
    bare.bind(A, 5, new)
    bare.post((1 | 3 << 4 | 0x88 << 32, 0), (2 | 2 << 4 | 6 << 16, 0))
    assert reaches(0x2000) == 0xA000
    bare.post(FORGET_CONTEXT[forget])
    assert reaches(0x3000) == 0xB000
    assert reaches(0x1000) == 0xA000, "translations stay"
    bare.post((2 | 2 << 4 | 5 << 16, 0))
    assert reaches(0x1000) == 0xB000


class Counting(Recorder):
    """Counts what it hears."""

    heard = 0

    def notify(self, event: IommuEvent) -> None:
        self.heard += 1


def with_large_queue(bare: BareUnit, base: int, *descriptors: tuple[int, int]) -> None:
    """Have the unit execute up to 4096 descriptors of 16 bytes by one write of the tail."""
    bare.post((5 | 1 << 6, 0))
    bare.unit.write_register(reg.GCMD, reg.TE)
    bare.unit.write_register(reg.IQT, 0)
    bare.unit.write_register(reg.IQA, base | 4)
    bare.unit.write_register(reg.GCMD, reg.TE | reg.QIE)
    for number, descriptor in enumerate(descriptors):
        bare.write(base + number * 16, *descriptor)
    bare.unit.write_register(reg.IQT, len(descriptors) << 4)
    assert bare.unit.read_register(reg.IQH) == len(descriptors) << 4


def test_what_exceeds_the_work_of_one_write_is_done_all_the_same() -> None:
    bare = BareUnit()
    bare.follow(A)
    bare.enable()
    root = bare.page()
    place = bare.map(root, 0x1000, 0xA000 | 3)
    bare.bind(A, 5, root)
    bare.binding_changed(A, 5)
    space = bare.unit.address_space(A)
    space.translate(0x1000, write=True)
    bare.write(place, 0xB000 | 3)
    bare.log.clear()
    with_large_queue(bare, 0x80000, *[(2 | 2 << 4 | 9 << 16, 0)] * 4000, (2 | 2 << 4 | 5 << 16, 0))
    assert bare.log == [("unmap", 0x1000, 0xFFF, 0xA000), ("map", 0x1000, 0xFFF, 0xB000)]
    found = space.translate(0x1000, write=True)
    assert not isinstance(found, Fault)
    assert found.translated == 0xB000


def test_events_count_as_work() -> None:
    """Waits that write into tables make every invalidation announce 512 mappings, though few tables are read."""
    bare = BareUnit()
    bare.follow(A)
    bare.enable()
    root = bare.page()
    place = bare.map(root, 0, bare.page() | 3, level=2)
    bare.write(bare.memory.read_u64(place) & ~0xFFF, *[frame << 12 | 3 for frame in range(512)])
    bare.bind(A, 5, root)
    bare.binding_changed(A, 5)
    present = bare.memory.read_u64(place)
    counting = Counting(A, [])
    bare.unit.address_space(A).set_listener(counting)
    follow = 2 | 2 << 4 | 5 << 16, 0
    flip = [(5 | 1 << 5, place), follow, (5 | 1 << 5 | present << 32, place), follow]
    with_large_queue(bare, 0x80000, *flip * 600)
    assert 512 * 600 < counting.heard < 512 * 700
    assert len(bare.unit.address_space(A).mappings) == 512


def test_a_fault_event_is_a_message_held_back_while_masked_or_unserved() -> None:
    bare, _ = in_domain_five()
    space = bare.unit.address_space(A)
    for offset, value in ((reg.FEDATA, DATA), (reg.FEADDR, MESSAGE), (reg.FEUADDR, 1)):
        bare.unit.write_register(offset, value)
    space.translate(0x5000, write=False)
    assert bare.messages == []
    bare.unit.write_register(reg.FECTL, 0)
    assert bare.messages == [(1 << 32 | MESSAGE, DATA)]
    space.translate(0x6000, write=True)
    bare.unit.address_space(0x20).translate(0x6000, write=True)
    assert len(bare.messages) == 1, "the first is not served"
    bare.unit.write_register(reg.FRCD_TOP, 1 << 31)
    bare.unit.write_register(reg.FSTS, reg.FSTS_PFO)
    space.translate(0x6000, write=True)
    assert bare.messages == [(1 << 32 | MESSAGE, DATA)] * 2


def test_a_completion_event_is_a_message_and_comes_once_until_it_is_served() -> None:
    bare = BareUnit()
    bare.enable()
    for offset, value in ((reg.IEDATA, DATA), (reg.IEADDR, MESSAGE), (reg.IECTL, 0)):
        bare.unit.write_register(offset, value)
    bare.post(*[(WAIT_EVENT, 0)] * 100)
    assert bare.messages == [(MESSAGE, DATA)]
    bare.unit.write_register(reg.ICS, reg.ICS_IWC)
    bare.unit.write_register(reg.IECTL, reg.EVENT_MASKED)
    bare.post((WAIT_EVENT, 0))
    assert len(bare.messages) == 1
    bare.unit.write_register(reg.IECTL, 0)
    assert len(bare.messages) == 2
    bare.unit.write_register(reg.IECTL, 0)
    assert len(bare.messages) == 2, "it is pending no more"


def test_a_queue_error_raises_the_fault_event() -> None:
    bare = BareUnit()
    bare.enable()
    bare.unit.write_register(reg.FEADDR, MESSAGE)
    bare.unit.write_register(reg.FECTL, 0)
    bare.post((15, 0))
    assert bare.messages == [(MESSAGE, 0)]


def test_interrupts_are_remapped_when_that_is_on() -> None:
    bare = BareUnit()
    message = InterruptMessage(0xFEE0_0000 | 1 << 4 | 3 << 5, 0)
    assert bare.unit.remap_interrupt(A, message) == message
    table = bare.page()
    bare.write(table + 3 * 16, 1 | 0x31 << 16 | 2 << 40)
    bare.unit.write_register(reg.IRTA, table | 3)
    bare.unit.write_register(reg.GCMD, reg.SIRTP)
    bare.unit.write_register(reg.GCMD, reg.IRE)
    remapped = bare.unit.remap_interrupt(A, message)
    assert remapped is not None
    assert (remapped.address >> 12 & 0xFF, remapped.data & 0xFF) == (2, 0x31)
    assert bare.unit.remap_interrupt(A, InterruptMessage(0xFEE0_0000 | 1 << 4 | 16 << 5, 0)) is None
    assert bare.unit.faults_recorded == 1
    assert bare.unit.read_register(reg.FRCD_LOW) >> 48 == 16
    assert bare.unit.read_register(reg.FRCD_HIGH) >> 32 & 0xFF == FaultReason.INTERRUPT_INDEX
    assert bare.unit.remap_interrupt(A, InterruptMessage(0xFEE0_0000 | 1 << 4 | 17 << 5, 0)) is None
    assert bare.unit.faults_recorded == 1, "one record a source"


def test_a_unit_without_interrupt_remapping_takes_no_such_command() -> None:
    configured = VtdConfiguration(
        scalable=False,
        aw_bits=48,
        caching_mode=True,
        dma_translation=True,
        reports_max_iova=True,
        interrupt_remapping=False,
    )
    unit = VtdUnit(GuestMemory(RamBlock.create("none", RAM)), configured, lambda: False)
    unit.write_register(reg.GCMD, reg.IRE)
    assert unit.read_register(reg.GSTS) == 0
    assert not unit.read_register(reg.ECAP) & reg.ECAP_IR


def test_configurations_that_do_not_exist_are_refused() -> None:
    configured = VtdConfiguration(
        scalable=False,
        aw_bits=48,
        caching_mode=True,
        dma_translation=True,
        reports_max_iova=True,
        first_stage=True,
    )
    with pytest.raises(UnsupportedConfiguration, match="scalable"):
        VtdUnit(GuestMemory(RamBlock.create("none", RAM)), configured, lambda: False)
