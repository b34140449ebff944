"""At every moment, on either host, a listener holds what the guest mapped; and states that are refused."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vmm.viommu.bare_unit import BareUnit
from tests.vmm.vtd_machine import DEVFN, LARGE, Rig, buffer
from vmm.guest.dma import MapFailed
from vmm.guest.vtd_domain import DomainKind
from vmm.guest.vtd_errors import DriverStateRefused
from vmm.memory.quantities import Iova
from vmm.viommu import registers as reg
from vmm.viommu.context import SecondStage
from vmm.viommu.errors import StateRefused
from vmm.viommu.interrupt_remapping import InterruptMessage


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
DEVICES = (0x18, 0x88)
LENGTHS = (0x1000, 0x3000, 0x10000, LARGE, LARGE + 0x1000, LARGE // 2)


def follow(rig: Rig, live: list[tuple[Iova, int]], step: Step) -> None:
    mapper = rig.driver.domain(DEVFN)
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
@settings(max_examples=40)
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
    rig.driver.domain(DEVFN).map([buffer(0, LARGE)])
    state, events, log = rig.unit.save(), list(rig.listener.events), list(rig.listener.log)
    with pytest.raises(StateRefused):
        rig.unit.load(spoil(state))
    assert rig.unit.save() == state
    assert (rig.listener.events, rig.listener.log) == (events, log)


@given(st.data())
@settings(max_examples=60)
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


@pytest.mark.parametrize("scalable", [False, True], ids=["legacy", "scalable"])
def test_everything_that_moves_takes_effect_again(scalable: bool) -> None:
    """Two devices in domains of their own, a queue half way round, interrupts remapped, an event left pending."""
    bare = BareUnit(scalable=scalable)
    roots = {devfn: bare.page() for devfn in DEVICES}
    for devfn in DEVICES:
        bare.follow(devfn)
    bare.enable()
    for domain, (devfn, root) in enumerate(roots.items(), start=5):
        bare.map(root, domain << 12, 0xA000 | domain - 4)
        bare.map(root, 0x40000000, 0x83, level=2)
        bare.bind(devfn, domain, root)
        bare.binding_changed(devfn, domain)
    table = bare.page()
    bare.write(table, 1 | 0x31 << 16)
    bare.unit.write_register(reg.IRTA, table | 3)
    bare.unit.write_register(reg.GCMD, reg.QIE | reg.TE | reg.SIRTP)
    bare.unit.write_register(reg.GCMD, reg.QIE | reg.TE | reg.IRE)
    bare.post(*[(5 | 1 << 6, 0)] * 99, (5 | 1 << 4, 0))
    bare.unit.address_space(DEVICES[0]).translate(0x9000, write=True)
    arrived = arrive(bare)
    for devfn in DEVICES:
        assert arrived.listeners[devfn].held == bare.listeners[devfn].held != {}
        space, binding = arrived.unit.address_space(devfn), arrived.unit._look_up(devfn)
        assert isinstance(binding, SecondStage)
        assert list(space.mappings) == arrived.unit._translator.walker.mappings(binding, 0, (1 << 48) - 1)
    message = InterruptMessage(0xFEE00000 | 1 << 4, 0)
    assert arrived.unit.remap_interrupt(0x18, message) == bare.unit.remap_interrupt(0x18, message) != message
    for event in (reg.FECTL, reg.IECTL):
        arrived.unit.write_register(event, 0)
    assert len(arrived.messages) == 2, "both were masked, and pending"
    arrived.post((5 | 1 << 5 | 7 << 32, 0x9000))
    assert arrived.memory.read_u64(0x9000) == 7
    assert arrived.unit.read_register(reg.IQH) == arrived.unit.read_register(reg.IQT) == 103 << (5 if scalable else 4)


def test_a_queue_that_stopped_is_still_stopped_after_the_move() -> None:
    bare = BareUnit()
    bare.enable()
    bare.post((15, 0), (5 | 1 << 5 | 7 << 32, 0x9000))
    arrived = arrive(bare)
    assert arrived.unit.read_register(reg.FSTS) == reg.FSTS_IQE
    arrived.write(0x8000, 5 | 1 << 6)
    arrived.unit.write_register(reg.FSTS, reg.FSTS_IQE)
    assert arrived.memory.read_u64(0x9000) == 7


@pytest.mark.parametrize("flag", [-5, -4, -3, -2, -1])
def test_a_state_that_contradicts_its_status_register_is_refused(flag: int) -> None:
    bare = BareUnit()
    bare.enable()
    state = bytearray(bare.unit.save())
    state[flag] ^= 1
    if flag == -1:  # how wide destinations are has no bit there
        bare.unit.load(bytes(state))
        return
    with pytest.raises(StateRefused):
        bare.unit.load(bytes(state))


def arrive(bare: BareUnit) -> BareUnit:
    arrived = BareUnit(scalable=bare.scalable)
    arrived.memory.block.data[:] = bare.memory.block.data
    arrived.tail = bare.tail
    for devfn in bare.listeners:
        arrived.follow(devfn)
    arrived.unit.load(bare.unit.save())
    return arrived
