"""At every moment, on either host, a listener holds what the guest mapped; and states that are refused."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vmm.vtd_machine import DEVFN, LARGE, Rig, buffer
from vmm.guest.dma import MapFailed
from vmm.guest.vtd_domain import DomainKind
from vmm.guest.vtd_errors import DriverStateRefused
from vmm.memory.quantities import Iova
from vmm.viommu import registers as reg
from vmm.viommu.errors import StateRefused


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
    rig.driver.domain(DEVFN).map([buffer(0, LARGE)])
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
