"""The guest's VT-d driver: what it maps reaches the listener, and what fails leaves nothing behind."""

import msgspec
import pytest

from tests.vmm.vtd_machine import BUFFERS, DEVFN, LARGE, Rig, buffer
from vmm.guest.dma import MapFailed
from vmm.guest.layout import TABLES_BASE
from vmm.guest.vtd_domain import DomainKind, IdentityMapper
from vmm.guest.vtd_driver import DriverState, VtdDriver
from vmm.guest.vtd_errors import DriverStateRefused, InvalidationFailed, NotMapped, UnsupportedUnit
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


def test_a_user_level_drivers_domain_goes_with_all_that_it_maps(rig: Rig) -> None:
    rig.tracking = True
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    (kept,) = rig.driver.domain(DEVFN).map([buffer(0, 0x3000)])
    spare = rig.driver.spare_pages
    for _ in range(3):
        rig.driver.attach(DEVFN, DomainKind.USER)
        assert not rig.listener.held
        user = rig.driver.domain(DEVFN, DomainKind.USER)
        assert user.domain_id != rig.driver.domain(DEVFN).domain_id
        user.map_at(Iova(0x2_0000_0000), buffer(LARGE, 2 * LARGE))
        user.map_at(Iova(0x7000), buffer(0x5000, 0x2000))
        assert {event.translated for event in rig.listener.held.values()} == {
            *(BUFFERS + LARGE * number for number in (1, 2)),
            *(BUFFERS + offset for offset in (0x5000, 0x6000)),
        }
        with pytest.raises(AssertionError, match="still in the domain"):
            rig.driver.discard(DEVFN)
        rig.listener.events.clear()
        rig.driver.attach(DEVFN, DomainKind.BLOCKED)
        assert not rig.listener.held
        assert sorted(event.translated for event in rig.listener.events) == [
            BUFFERS + 0x5000,
            BUFFERS + 0x6000,
            BUFFERS + LARGE,
            BUFFERS + 2 * LARGE,
        ]
        rig.driver.discard(DEVFN)
        rig.driver.attach(DEVFN, DomainKind.PAGING)
        assert set(rig.listener.held) == {kept, kept + 0x1000, kept + 0x2000}
        assert rig.driver.spare_pages == spare


def test_a_map_at_an_address_that_fails_leaves_nothing() -> None:
    rig = Rig(pool=16 * 4096)
    rig.driver.enable()
    rig.driver.attach(DEVFN, DomainKind.USER)
    spare = rig.driver.spare_pages
    user = rig.driver.domain(DEVFN, DomainKind.USER)
    user.map_at(Iova(0x1000), buffer(0x1000, 3 * LARGE))
    left = rig.driver.spare_pages
    with pytest.raises(MapFailed):
        user.map_at(Iova(1 << 34), buffer(0x1000, 8 * LARGE - 0x2000))
    assert rig.driver.spare_pages == left
    assert rig.held_pages() == rig.walked()
    rig.driver.attach(DEVFN, DomainKind.BLOCKED)
    rig.driver.discard(DEVFN)
    assert rig.driver.spare_pages == spare + 1


def test_both_domains_of_a_device_move(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    rig.driver.domain(DEVFN).map([buffer(0, 0x3000)])
    rig.driver.attach(DEVFN, DomainKind.USER)
    rig.driver.domain(DEVFN, DomainKind.USER).map_at(Iova(0x9000), buffer(LARGE, 0x1000))
    data = rig.driver.save()
    scalable, levels = rig.driver._scalable, rig.driver._levels
    moved = VtdDriver(rig.memory, rig, scalable=scalable, aw_bits=12 + 9 * levels, tables=(TABLES_BASE, 1 << 20))
    moved.load(data)
    assert moved.save() == data
    assert moved.domain_of(DEVFN) is DomainKind.USER
    moved.attach(DEVFN, DomainKind.PAGING)
    moved.discard(DEVFN)
    assert len(rig.listener.held) == 3


@pytest.mark.parametrize("change", ["kind", "twice", "number", "missing", "identity"])
def test_a_state_of_impossible_domains_is_refused(change: str) -> None:
    rig = Rig()
    rig.driver.enable()
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    rig.driver.attach(DEVFN, DomainKind.USER)
    before = rig.driver.save()
    state = msgspec.msgpack.decode(before, type=DriverState)
    first, second = state.domains
    domains = {
        "kind": (msgspec.structs.replace(first, kind="none"), second),
        "twice": (first, msgspec.structs.replace(second, kind=first.kind)),
        "number": (first, msgspec.structs.replace(second, domain_id=first.domain_id)),
        "missing": tuple(each for each in state.domains if each.kind == "paging"),
        "identity": (msgspec.structs.replace(first, kind="identity"), second),
    }
    with pytest.raises(DriverStateRefused):
        rig.driver.load(msgspec.msgpack.encode(msgspec.structs.replace(state, domains=domains[change])))
    assert rig.driver.save() == before
