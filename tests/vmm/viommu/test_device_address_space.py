"""What a listener is told when a device changes domains, and when tables change (semantics 4.12 to 4.14)."""

from collections.abc import Callable

import pytest

from tests.vmm.vtd_machine import BUFFERS, DEVFN, LARGE, Listener, Rig, buffer
from vmm.guest.layout import TABLES_BASE
from vmm.guest.vtd_domain import DomainKind
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import Iova
from vmm.memory.ram_block import RamBlock
from vmm.viommu import registers as reg
from vmm.viommu.context import RootTable
from vmm.viommu.errors import CachingModeRequired, UnsupportedConfiguration
from vmm.viommu.events import IommuEvent
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.intel import View, VtdConfiguration, VtdUnit
from vmm.viommu.shadow import power_of_two_chunks

LOW_CHUNKS_MIB = [2048, 1024, 512, 256, 128, 64, 32, 8, 4, 2]


@pytest.fixture(params=[(True, 48), (True, 39), (False, 48), (False, 39)], ids=str)
def rig(request: pytest.FixtureRequest) -> Rig:
    scalable, aw_bits = request.param
    made = Rig(scalable=bool(scalable), aw_bits=int(aw_bits))
    made.driver.enable()
    return made


def test_views_change_in_the_hardware_order(rig: Rig) -> None:
    assert rig.listener.log == ["+ram 0", "-ram 0", "+iommu 18"]
    assert isinstance(rig.space.translate(0x1000, write=True), Fault), "a device without a domain is blocked"
    rig.listener.log.clear()
    rig.driver.attach(DEVFN, DomainKind.IDENTITY)
    assert rig.listener.log == ["-iommu 18", "+ram 0"]
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    assert rig.listener.log == ["-iommu 18", "+ram 0", "-ram 0", "+iommu 18"]
    rig.driver.attach(DEVFN, DomainKind.BLOCKED)
    assert rig.space.view is View.TRANSLATED
    rig.driver.attach(DEVFN, DomainKind.IDENTITY)
    assert rig.listener.log[4:] == ["-iommu 18", "+ram 0"]
    assert rig.driver.domain_of(DEVFN) is DomainKind.IDENTITY


@pytest.mark.parametrize("moved_to", [DomainKind.BLOCKED, DomainKind.IDENTITY])
def test_tracking_unmaps_exactly_what_is_mapped(rig: Rig, moved_to: DomainKind) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    small, large = rig.driver.domain(DEVFN).map([buffer(0x1000, 0x1000), buffer(LARGE, LARGE)])
    rig.tracking = True
    rig.listener.events.clear()
    rig.driver.attach(DEVFN, moved_to)
    assert {(event.iova, event.mask, event.translated, event.is_unmap) for event in rig.listener.events} == {
        (small, 0xFFF, BUFFERS + 0x1000, True),
        (large, LARGE - 1, BUFFERS + LARGE, True),
    }
    assert len(rig.listener.events) == 2
    rig.driver.attach(DEVFN, DomainKind.BLOCKED)
    rig.listener.events.clear()
    rig.space.unmap()
    assert not rig.listener.events, "nothing is mapped, so nothing is unmapped"
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    assert rig.held_pages() == rig.walked()
    assert {small, large} == set(rig.listener.held)


def test_worked_vector_of_the_precise_unmap(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    domain = rig.driver.domain(DEVFN)
    domain.tables.map(0x1000, 0xA000, 0x1000)
    domain.tables.map(0x200000, 0x40000000, LARGE)
    domain._invalidate([(Iova(0), 4 * LARGE)])
    rig.tracking = True
    rig.listener.events.clear()
    rig.driver.attach(DEVFN, DomainKind.BLOCKED)
    assert {(event.iova, event.mask, event.translated, event.is_unmap) for event in rig.listener.events} == {
        (0x1000, 0xFFF, 0xA000, True),
        (0x200000, 0x1FFFFF, 0x40000000, True),
    }


def turn_translation_off(rig: Rig) -> None:
    rig.unit.write_register(reg.GCMD, reg.QIE)


def bind_to_identity_without_blocking(rig: Rig) -> None:
    rig.driver._bindings.bind(DEVFN, 1, None)
    rig.driver._forget_binding(DEVFN, 1)


@pytest.mark.parametrize("switch", [turn_translation_off, bind_to_identity_without_blocking])
def test_switching_away_directly_loses_no_mapping_while_tracking(rig: Rig, switch: Callable[[Rig], None]) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    (iova,) = rig.driver.domain(DEVFN).map([buffer(0, LARGE)])
    rig.tracking = True
    rig.listener.events.clear()
    switch(rig)
    assert [(event.iova, event.translated) for event in rig.listener.events] == [(iova, BUFFERS)]
    assert rig.listener.log[-2:] == ["-iommu 18", "+ram 0"]


def test_without_tracking_a_blocked_device_is_unmapped_widely(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    rig.driver.domain(DEVFN).map([buffer(0, 0x1000)])
    rig.listener.events.clear()
    rig.driver.attach(DEVFN, DomainKind.BLOCKED)
    assert not rig.listener.held
    sizes = [event.mask + 1 for event in rig.listener.events]
    assert [size >> 20 for size in sizes[:11]] == [*LOW_CHUNKS_MIB, 1]
    assert sum(sizes) == (1 << rig.unit.configuration.aw_bits) - (1 << 20)
    assert all(event.is_unmap and event.translated == 0 for event in rig.listener.events)


def test_chunks_of_a_whole_range() -> None:
    assert [size >> 20 for _, size in power_of_two_chunks(0, 0xFEDFFFFF)] == LOW_CHUNKS_MIB
    high = list(power_of_two_chunks(0xFEF00000, (1 << 48) - 1))
    assert high[:4] == [(0xFEF00000, 1 << 20), (0xFF000000, 16 << 20), (1 << 32, 1 << 32), (1 << 33, 1 << 33)]
    assert high[-5:] == [(1 << order, 1 << order) for order in range(43, 48)]


def test_a_changed_leaf_is_unmapped_before_it_is_mapped_anew(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    (iova,) = rig.driver.domain(DEVFN).map([buffer(0, LARGE)])
    domain = rig.driver.domain(DEVFN)
    domain.tables.unmap(iova, LARGE, [])
    domain.tables.map(iova, BUFFERS + LARGE, LARGE // 2)
    rig.listener.events.clear()
    # Only one page is named, but the leaf that it touches is gone as a whole.
    domain._invalidate([(Iova(iova + 0x5000), 0x1000)])
    first, second = rig.listener.events[:2]
    assert (first.is_unmap, first.mask, first.translated) == (True, LARGE - 1, BUFFERS)
    assert (second.is_unmap, second.mask, second.translated) == (False, 0xFFF, BUFFERS + LARGE)
    assert rig.held_pages() == rig.walked()
    assert len(rig.listener.held) == 256
    rig.listener.events.clear()
    domain._invalidate([(iova, LARGE)])
    assert not rig.listener.events, "what is present and identical is left alone"


def test_a_leaf_across_the_interrupt_hole_is_cropped(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    domain = rig.driver.domain(DEVFN)
    domain.tables.map(0xFEE00000, BUFFERS, LARGE)
    domain._invalidate([(Iova(0xFEE00000), LARGE)])
    (event,) = rig.listener.held.values()
    assert (event.iova, event.mask, event.translated) == (0xFEF00000, 0xFFFFF, BUFFERS + 0x100000)


def test_replay_delivers_the_mappings_and_brings_them_up_to_date(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    mapper = rig.driver.domain(DEVFN)
    gone, kept = mapper.map([buffer(0, 0x1000), buffer(LARGE, LARGE)])
    rig.driver.domain(DEVFN).tables.unmap(gone, 0x1000, [])  # cleared, and not invalidated yet
    delivered: list[IommuEvent] = []
    rig.space.replay(delivered.append)
    assert [(event.iova, event.translated, event.is_unmap) for event in delivered] == [(kept, BUFFERS + LARGE, False)]
    assert set(rig.listener.held) == {kept}


def test_two_devices_do_not_see_each_others_mappings(rig: Rig) -> None:
    other, listener = rig.unit.address_space(0x88), Listener()
    other.set_listener(listener)
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    rig.driver.attach(0x88, DomainKind.PAGING)
    mine, theirs = rig.driver.domain(DEVFN).map([buffer(0, 0x1000)]), rig.driver.domain(0x88).map([buffer(0, LARGE)])
    assert (set(rig.listener.held), set(listener.held)) == (set(mine), set(theirs))
    assert rig.unit.address_space(0x88) is other
    rig.driver.attach(0x88, DomainKind.BLOCKED)
    assert set(rig.listener.held) == set(mine)


def test_device_assignment_needs_caching_mode() -> None:
    memory = GuestMemory(RamBlock.create("vtd", 1 << 20))
    configuration = VtdConfiguration(
        scalable=True, aw_bits=48, caching_mode=False, dma_translation=True, reports_max_iova=False
    )
    with pytest.raises(CachingModeRequired):
        VtdUnit(memory, configuration, lambda: False).address_space(DEVFN).set_listener(Listener())


def test_address_widths_that_do_not_exist() -> None:
    memory = GuestMemory(RamBlock.create("vtd", 1 << 20))
    configuration = VtdConfiguration(
        scalable=True, aw_bits=57, caching_mode=True, dma_translation=True, reports_max_iova=False
    )
    with pytest.raises(UnsupportedConfiguration, match="57"):
        VtdUnit(memory, configuration, lambda: False)


def test_a_queue_full_of_walks_through_hostile_tables_ends() -> None:
    """Tables that describe 2^36 pages, invalidated as often as one write of the tail allows."""
    rig = Rig(scalable=False)
    rig.driver.enable()
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    root = rig.driver.domain(DEVFN).tables.root
    rig.memory.words(root, 512)[:] = 0
    rig.memory.words(root, 4)[:] = root | 3
    queue = BUFFERS
    rig.write(reg.IQT, (rig.driver._ring.save().tail) << 4)
    rig.write(reg.GCMD, reg.TE)
    rig.write(reg.IQT, 0)
    rig.write(reg.IQA, queue | 7)
    rig.memory.words(queue, 2 << 15).reshape(-1, 2)[:] = (2 | 1 << 4, 0)
    before = rig.unit._translator.walker.tables_read
    rig.write(reg.GCMD, reg.TE | reg.QIE)
    rig.write(reg.IQT, 32767 << 4)
    assert rig.read(reg.IQH) == 32767 << 4
    assert rig.unit._translator.walker.tables_read - before < 300_000
    assert len(rig.listener.held) == 4**4


def test_a_fault_names_the_reason_of_the_mode(rig: Rig) -> None:
    found = rig.space.translate(0x1000, write=False)
    assert isinstance(found, Fault)
    assert found.reason is FaultReason.ROOT_NOT_PRESENT
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    rig.driver.attach(DEVFN, DomainKind.BLOCKED)
    blocked = rig.space.translate(0x1000, write=False)
    assert isinstance(blocked, Fault)
    scalable = rig.unit.configuration.scalable
    assert blocked.reason is (FaultReason.PASID_NOT_PRESENT if scalable else FaultReason.CONTEXT_NOT_PRESENT)
    assert rig.unit._root == RootTable(TABLES_BASE, scalable=scalable)
