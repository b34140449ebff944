"""The guest's VT-d driver and the unit together: what a listener holds is what the guest mapped, at every moment."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.guest.dma import MapFailed
from vmm.guest.layout import TABLES_BASE
from vmm.guest.vtd_driver import DomainKind, IdentityMapper, VtdDriver
from vmm.guest.vtd_errors import DriverStateRefused, InvalidationFailed, NotMapped, UnsupportedUnit
from vmm.memory.guest_physical import GuestMemory, Section
from vmm.memory.quantities import GuestPhysicalAddress, Iova
from vmm.memory.ram_block import RamBlock
from vmm.viommu import registers as reg
from vmm.viommu.address_space import power_of_two_chunks
from vmm.viommu.context import RootTable
from vmm.viommu.errors import CachingModeRequired, StateRefused, UnsupportedConfiguration
from vmm.viommu.events import IommuEvent
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.intel import DeviceAddressSpace, View, VtdConfiguration, VtdUnit
from vmm.viommu.walk import Translation

RAM = 16 << 20
DEVFN = 0x18
LARGE = 2 << 20
BUFFERS = 8 << 20
LOW_CHUNKS_MIB = [2048, 1024, 512, 256, 128, 64, 32, 8, 4, 2]


def buffer(offset: int, length: int) -> tuple[GuestPhysicalAddress, int]:
    return GuestPhysicalAddress(BUFFERS + offset), length


@dataclass
class Listener:
    """A container that believes every event, and refuses one that does not fit."""

    log: list[str] = field(default_factory=list)
    events: list[IommuEvent] = field(default_factory=list)
    held: dict[int, IommuEvent] = field(default_factory=dict)

    def ram_added(self, section: Section) -> None:
        self.log.append(f"+ram {section.base:x}")

    def ram_removed(self, section: Section) -> None:
        self.log.append(f"-ram {section.base:x}")

    def iommu_added(self, space: DeviceAddressSpace) -> None:
        self.log.append(f"+iommu {space.devfn:x}")

    def iommu_removed(self, space: DeviceAddressSpace) -> None:
        self.log.append(f"-iommu {space.devfn:x}")
        self.held.clear()

    def notify(self, event: IommuEvent) -> None:
        self.events.append(event)
        last = event.iova + event.mask
        inside = [old for old in self.held.values() if event.iova <= old.iova + old.mask and old.iova <= last]
        if not event.is_unmap:
            assert not inside
            self.held[event.iova] = event
        for old in inside:
            assert event.iova <= old.iova
            assert old.iova + old.mask <= last
            del self.held[old.iova]


class Rig:
    """One machine's RAM, unit, driver and the listener of one device."""

    def __init__(
        self, *, scalable: bool = True, aw_bits: int = 48, pool: int = 1 << 20, ram: RamBlock | None = None
    ) -> None:
        self.tracking = False
        self.memory = GuestMemory(RamBlock.create("vtd", RAM) if ram is None else ram)
        configuration = VtdConfiguration(
            scalable=scalable, aw_bits=aw_bits, caching_mode=True, dma_translation=True, reports_max_iova=True
        )
        self.unit = VtdUnit(self.memory, configuration, lambda: self.tracking)
        self.listener = Listener()
        self.space = self.unit.address_space(DEVFN)
        self.space.set_listener(self.listener)
        self.driver = VtdDriver(self.memory, self, scalable=scalable, aw_bits=aw_bits, tables=(TABLES_BASE, pool))

    def read(self, offset: int) -> int:
        return self.unit.read_register(offset)

    def write(self, offset: int, value: int) -> None:
        self.unit.write_register(offset, value)

    def walked(self) -> dict[int, tuple[int, int, bool, bool]]:
        """Every page that the device reaches by the tables in RAM, found one at a time by translation."""
        reached: dict[int, tuple[int, int, bool, bool]] = {}
        for event in self.listener.held.values():
            for iova in range(event.iova, event.iova + event.mask, 4096):
                found = self.space.translate(iova, write=True)
                if isinstance(found, Translation):
                    reached[iova] = (found.translated, found.mask, found.readable, found.writable)
        return reached

    def held_pages(self) -> dict[int, tuple[int, int, bool, bool]]:
        pages = {}
        for event in self.listener.held.values():
            for offset in range(0, event.mask, 4096):
                translated = event.translated + offset
                pages[event.iova + offset] = (translated, event.mask, event.readable, event.writable)
        return pages


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


def test_large_buffers_take_one_leaf_and_others_pages(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    mapper = rig.driver.mapper(DEVFN)
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
    mapper = rig.driver.mapper(DEVFN)
    iovas = mapper.map([buffer(number * 0x2000, 0x2000) for number in range(100)])
    mapper.unmap([(iova, 0x2000) for iova in iovas])
    assert written == [reg.IQT, reg.IQT]


def test_empty_tables_and_addresses_are_used_again(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    mapper = rig.driver.mapper(DEVFN)
    before = rig.driver._pool.available
    first = mapper.map([buffer(0, 0x1000), buffer(LARGE, LARGE)])
    mapper.unmap([(first[0], 0x1000), (first[1], LARGE)])
    assert rig.driver._pool.available == before
    assert mapper.map([buffer(0, 0x1000), buffer(LARGE, LARGE)]) == first


def test_a_map_without_table_pages_changes_nothing() -> None:
    rig = Rig(pool=16 * 4096)
    rig.driver.enable()
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    mapper = rig.driver.mapper(DEVFN)
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
    mapper = rig.driver.mapper(DEVFN)
    (iova,) = mapper.map([buffer(0, 0x1000)])
    with pytest.raises(NotMapped):
        mapper.unmap([(iova, 0x1000), (Iova(0x5000), 0x1000)])
    assert not rig.listener.held


def test_a_stopped_queue_is_an_error(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    rig.unit.write_register(reg.IQT, 0x7FFE0)
    with pytest.raises(InvalidationFailed, match="stopped"):
        rig.driver.mapper(DEVFN).map([buffer(0, 0x1000)])


@pytest.mark.parametrize("moved_to", [DomainKind.BLOCKED, DomainKind.IDENTITY])
def test_tracking_unmaps_exactly_what_is_mapped(rig: Rig, moved_to: DomainKind) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    small, large = rig.driver.mapper(DEVFN).map([buffer(0x1000, 0x1000), buffer(LARGE, LARGE)])
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


def test_without_tracking_a_blocked_device_is_unmapped_widely(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    rig.driver.mapper(DEVFN).map([buffer(0, 0x1000)])
    rig.listener.events.clear()
    rig.driver.attach(DEVFN, DomainKind.BLOCKED)
    assert not rig.listener.held
    sizes = [event.mask + 1 for event in rig.listener.events]
    assert [size >> 20 for size in sizes[:11]] == [*LOW_CHUNKS_MIB, 1]
    assert sum(sizes) == (1 << rig.unit.configuration.aw_bits) - (1 << 20)
    assert all(event.is_unmap and event.translated == 0 for event in rig.listener.events)


def test_worked_vector_of_the_precise_unmap(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    domain = rig.driver._domain(DEVFN)
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
    (iova,) = rig.driver.mapper(DEVFN).map([buffer(0, LARGE)])
    rig.tracking = True
    rig.listener.events.clear()
    switch(rig)
    assert [(event.iova, event.translated) for event in rig.listener.events] == [(iova, BUFFERS)]
    assert rig.listener.log[-2:] == ["-iommu 18", "+ram 0"]


def test_chunks_of_a_whole_range() -> None:
    assert [size >> 20 for _, size in power_of_two_chunks(0, 0xFEDFFFFF)] == LOW_CHUNKS_MIB
    high = list(power_of_two_chunks(0xFEF00000, (1 << 48) - 1))
    assert high[:4] == [(0xFEF00000, 1 << 20), (0xFF000000, 16 << 20), (1 << 32, 1 << 32), (1 << 33, 1 << 33)]
    assert high[-5:] == [(1 << order, 1 << order) for order in range(43, 48)]


def test_a_changed_leaf_is_unmapped_before_it_is_mapped_anew(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    (iova,) = rig.driver.mapper(DEVFN).map([buffer(0, LARGE)])
    domain = rig.driver._domain(DEVFN)
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
    domain = rig.driver._domain(DEVFN)
    domain.tables.map(0xFEE00000, BUFFERS, LARGE)
    domain._invalidate([(Iova(0xFEE00000), LARGE)])
    (event,) = rig.listener.held.values()
    assert (event.iova, event.mask, event.translated) == (0xFEF00000, 0xFFFFF, BUFFERS + 0x100000)


def test_replay_delivers_the_mappings_and_brings_them_up_to_date(rig: Rig) -> None:
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    mapper = rig.driver.mapper(DEVFN)
    gone, kept = mapper.map([buffer(0, 0x1000), buffer(LARGE, LARGE)])
    rig.driver._domain(DEVFN).tables.unmap(gone, 0x1000, [])  # cleared, and not invalidated yet
    delivered: list[IommuEvent] = []
    rig.space.replay(delivered.append)
    assert [(event.iova, event.translated, event.is_unmap) for event in delivered] == [(kept, BUFFERS + LARGE, False)]
    assert set(rig.listener.held) == {kept}


def test_two_devices_do_not_see_each_others_mappings(rig: Rig) -> None:
    other, listener = rig.unit.address_space(0x88), Listener()
    other.set_listener(listener)
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    rig.driver.attach(0x88, DomainKind.PAGING)
    mine, theirs = rig.driver.mapper(DEVFN).map([buffer(0, 0x1000)]), rig.driver.mapper(0x88).map([buffer(0, LARGE)])
    assert (set(rig.listener.held), set(listener.held)) == (set(mine), set(theirs))
    assert rig.unit.address_space(0x88) is other
    rig.driver.attach(0x88, DomainKind.BLOCKED)
    assert set(rig.listener.held) == set(mine)


@dataclass(frozen=True)
class Step:
    action: str
    number: int


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["map", "map", "map", "unmap", "unmap", "identity", "paging", "block", "track", "move"]),
        st.integers(0, 1 << 16),
    ),
    max_size=30,
)
LENGTHS = (0x1000, 0x3000, 0x10000, LARGE, LARGE + 0x1000, LARGE // 2)


def follow(rig: Rig, live: list[tuple[Iova, int]], step: Step) -> None:
    mapper = rig.driver.mapper(DEVFN)
    match step.action:
        case "map":
            lengths = [LENGTHS[step.number % 6], LENGTHS[step.number // 6 % 6]]
            buffers = [
                buffer(step.number % 4 * 0x1000 * (index + step.number % 2), length)
                for index, length in enumerate(lengths)
            ]
            with suppress(MapFailed):
                live.extend(zip(mapper.map(buffers), lengths, strict=True))
        case "unmap" if live:
            mapper.unmap([live.pop(step.number % len(live))])
        case "identity" | "paging":
            rig.driver.attach(DEVFN, DomainKind(step.action))
        case "block":
            rig.driver.attach(DEVFN, DomainKind.BLOCKED)
        case "track":
            rig.tracking = not rig.tracking
        case _:
            pass


def moved(rig: Rig) -> Rig:
    """Carry a machine over to another host, RAM and states."""
    configuration = rig.unit.configuration
    arrived = Rig(scalable=configuration.scalable, aw_bits=configuration.aw_bits, pool=24 * 4096)
    arrived.memory.block.data[:] = rig.memory.block.data
    arrived.unit.load(rig.unit.save())
    arrived.driver.load(rig.driver.save())
    assert arrived.unit.save() == rig.unit.save()
    assert arrived.driver.save() == rig.driver.save()
    assert arrived.listener.held == rig.listener.held
    assert arrived.space.view is rig.space.view
    return arrived


@given(st.booleans(), steps)
@settings(max_examples=40, deadline=None)
def test_the_listener_holds_what_the_guest_mapped(scalable: bool, program: list[Step]) -> None:
    rig, live = Rig(scalable=scalable, pool=24 * 4096), list[tuple[Iova, int]]()
    rig.driver.enable()
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    for step in program:
        if step.action == "move":
            rig = moved(rig)
        else:
            follow(rig, live, step)
        if rig.driver.domain_of(DEVFN) is DomainKind.PAGING:
            expected = {iova + offset for iova, length in live for offset in range(0, length, 4096)}
            assert set(rig.held_pages()) == expected
            assert rig.held_pages() == rig.walked()
        else:
            assert not rig.listener.held
        assert not rig.read(reg.FSTS) & reg.FSTS_IQE


BAD_UNIT_STATES: list[Callable[[bytes], bytes]] = [
    lambda state: state[:-1],
    lambda state: b"X" + state[1:],
    lambda state: state[:5] + b"\x09" + state[6:],
    lambda state: state[:-4] + b"\x02" + state[-3:],
    lambda state: state[:-6] + b"\x0f" + state[-5:],
    lambda state: state[:6] + b"\xff" * 8 + state[14:],
    lambda state: state[:42] + b"\xff\xff" + state[44:],
    lambda state: b"",
]


@pytest.mark.parametrize("spoil", BAD_UNIT_STATES)
def test_a_bad_state_of_the_unit_changes_nothing(spoil: Callable[[bytes], bytes]) -> None:
    rig = Rig()
    rig.driver.enable()
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    rig.driver.mapper(DEVFN).map([buffer(0, LARGE)])
    state, events, log = rig.unit.save(), list(rig.listener.events), list(rig.listener.log)
    with pytest.raises(StateRefused):
        rig.unit.load(spoil(state))
    assert rig.unit.save() == state
    assert (rig.listener.events, rig.listener.log) == (events, log)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_state_makes_the_unit_raise_anything_else(data: st.DataObject) -> None:
    rig = Rig()
    rig.driver.enable()
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    state = bytearray(rig.unit.save())
    for _ in range(data.draw(st.integers(1, 4))):
        state[data.draw(st.integers(0, len(state) - 1))] = data.draw(st.integers(0, 255))
    try:
        rig.unit.load(bytes(state))
    except StateRefused:
        return
    rig.write(reg.IQT, 0)
    rig.space.sync()


def test_states_of_other_units_and_drivers_are_refused() -> None:
    scalable, legacy = Rig(), Rig(scalable=False)
    for rig in (scalable, legacy):
        rig.driver.enable()
    with pytest.raises(StateRefused, match="capabilities"):
        legacy.unit.load(scalable.unit.save())
    with pytest.raises(DriverStateRefused, match="mode"):
        legacy.driver.load(scalable.driver.save())
    for state in (b"", b"\x00", scalable.driver.save()[:-1]):
        with pytest.raises(DriverStateRefused):
            scalable.driver.load(state)
    small = Rig(pool=5 * 4096)
    scalable.driver.attach(DEVFN, DomainKind.PAGING)
    state = scalable.driver.save()
    with pytest.raises(DriverStateRefused, match="outside"):
        small.driver.load(state)


def test_the_driver_refuses_a_unit_that_lacks_what_it_needs() -> None:
    legacy = Rig(scalable=False, aw_bits=39)
    for scalable, aw_bits in ((True, 39), (False, 48)):
        driver = VtdDriver(legacy.memory, legacy, scalable=scalable, aw_bits=aw_bits, tables=(TABLES_BASE, 1 << 20))
        with pytest.raises(UnsupportedUnit):
            driver.enable()


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


def test_identity_mapping_maps_nothing() -> None:
    mapper = IdentityMapper()
    assert mapper.map([buffer(0, 0x1000)]) == [BUFFERS]
    mapper.unmap([(Iova(BUFFERS), 0x1000)])


def test_a_queue_full_of_walks_through_hostile_tables_ends() -> None:
    """Tables that describe 2^36 pages, invalidated as often as one write of the tail allows."""
    rig = Rig(scalable=False)
    rig.driver.enable()
    rig.driver.attach(DEVFN, DomainKind.PAGING)
    root = rig.driver._domain(DEVFN).tables.root
    rig.memory.words(root, 512)[:] = 0
    rig.memory.words(root, 4)[:] = root | 3
    queue = BUFFERS
    rig.write(reg.IQT, (rig.driver._ring.save().tail) << 4)
    rig.write(reg.GCMD, reg.TE)
    rig.write(reg.IQT, 0)
    rig.write(reg.IQA, queue | 7)
    rig.memory.words(queue, 2 << 15).reshape(-1, 2)[:] = (2 | 1 << 4, 0)
    before = rig.unit._walker.tables_read
    rig.write(reg.GCMD, reg.TE | reg.QIE)
    rig.write(reg.IQT, 32767 << 4)
    assert rig.read(reg.IQH) == 32767 << 4
    assert rig.unit._walker.tables_read - before < 300_000
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
