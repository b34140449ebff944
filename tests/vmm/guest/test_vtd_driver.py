"""The guest's VT-d driver: what it maps reaches the listener, and what fails leaves nothing behind."""

import pytest

from tests.vmm.vtd_machine import BUFFERS, DEVFN, LARGE, Rig, buffer
from vmm.guest.dma import MapFailed
from vmm.guest.layout import TABLES_BASE
from vmm.guest.vtd_domain import DomainKind, IdentityMapper
from vmm.guest.vtd_driver import VtdDriver
from vmm.guest.vtd_errors import InvalidationFailed, NotMapped, UnsupportedUnit
from vmm.memory.quantities import Iova
from vmm.viommu import registers as reg
from vmm.viommu.faults import Fault


@pytest.fixture(params=[(True, 48), (True, 39), (False, 48), (False, 39)], ids=str)
def rig(request: pytest.FixtureRequest) -> Rig:
    scalable, aw_bits = request.param
    made = Rig(scalable=bool(scalable), aw_bits=int(aw_bits))
    made.driver.enable()
    return made


def test_large_buffers_take_one_leaf_and_others_pages(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    mapper = rig.driver.domain(DEVFN)
    large, small = mapper.map([buffer(0, LARGE), buffer(LARGE, 0x3000)])
    held = rig.listener.held
    assert (held[large].mask, held[large].translated) == (LARGE - 1, BUFFERS)
    assert [held[small + offset].translated for offset in (0, 0x1000, 0x2000)] == [
        BUFFERS + LARGE + offset for offset in (0, 0x1000, 0x2000)
    ]
    assert len(held) == 4
    assert rig.held_pages() == rig.walked()
    rig.listener.events.clear()
    mapper.unmap([(large, LARGE), (small, 0x3000)])
    assert not held
    assert {(event.iova, event.mask, event.translated) for event in rig.listener.events} == {
        (large, LARGE - 1, BUFFERS),
        *((small + offset, 0xFFF, BUFFERS + LARGE + offset) for offset in (0, 0x1000, 0x2000)),
    }
    assert isinstance(rig.space.translate(large, write=True), Fault)


def test_a_batch_costs_one_tail_write(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    written: list[int] = []
    original = rig.unit.write_register

    def write(offset: int, value: int) -> None:
        written.append(offset)
        original(offset, value)

    monkeypatch.setattr(rig.unit, "write_register", write)
    mapper = rig.driver.domain(DEVFN)
    iovas = mapper.map([buffer(number * 0x2000, 0x2000) for number in range(100)])
    mapper.unmap([(iova, 0x2000) for iova in iovas])
    assert written == [reg.IQT, reg.IQT]


def test_empty_tables_and_addresses_are_used_again(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    mapper = rig.driver.domain(DEVFN)
    before = rig.driver._pool.available
    first = mapper.map([buffer(0, 0x1000), buffer(LARGE, LARGE)])
    mapper.unmap([(first[0], 0x1000), (first[1], LARGE)])
    assert rig.driver._pool.available == before
    assert mapper.map([buffer(0, 0x1000), buffer(LARGE, LARGE)]) == first


def test_a_map_without_table_pages_changes_nothing() -> None:
    rig = Rig(pool=16 * 4096)
    rig.driver.enable()
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    mapper = rig.driver.domain(DEVFN)
    kept = mapper.map([buffer(0, 0x1000)])
    before, held = rig.driver._pool.available, dict(rig.listener.held)
    with pytest.raises(MapFailed, match="pages"):
        mapper.map([buffer(0x1000, 8 * LARGE - 0x2000)] * 4)
    assert rig.driver._pool.available == before
    assert rig.listener.held == held
    assert rig.held_pages() == rig.walked()
    mapper.unmap([(kept[0], 0x1000)])


def test_an_unmap_of_what_is_not_mapped_is_an_error(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    mapper = rig.driver.domain(DEVFN)
    (iova,) = mapper.map([buffer(0, 0x1000)])
    with pytest.raises(NotMapped):
        mapper.unmap([(iova, 0x1000), (Iova(0x5000), 0x1000)])
    assert not rig.listener.held


def test_a_stopped_queue_is_an_error(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    rig.unit.write_register(reg.IQT, 0x7FFE0)
    with pytest.raises(InvalidationFailed, match="stopped"):
        rig.driver.domain(DEVFN).map([buffer(0, 0x1000)])


def test_the_driver_refuses_a_unit_that_lacks_what_it_needs() -> None:
    legacy = Rig(scalable=False, aw_bits=39)
    for scalable, aw_bits in ((True, 39), (False, 48)):
        driver = VtdDriver(legacy.memory, legacy, scalable=scalable, aw_bits=aw_bits, tables=(TABLES_BASE, 1 << 20))
        with pytest.raises(UnsupportedUnit):
            driver.enable()


def test_identity_mapping_maps_nothing() -> None:
    mapper = IdentityMapper()
    assert mapper.map([buffer(0, 0x1000)]) == [BUFFERS]
    mapper.unmap([(Iova(BUFFERS), 0x1000)])
