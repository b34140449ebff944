"""The invalidation queue: what descriptors mean, and what stops it (semantics 4.11)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock
from vmm.viommu import registers as reg
from vmm.viommu.commands import (
    Command,
    InvalidateContexts,
    InvalidateIotlb,
    InvalidatePasids,
    Nothing,
    Wait,
)
from vmm.viommu.descriptors import decode
from vmm.viommu.intel import VtdConfiguration, VtdUnit

RAM = 1 << 20
QUEUE, STATUS = 0x10000, 0x30000
WAIT = 5 | 1 << 5


class Rig:
    """A unit with its queue on, and the guest's side of it."""

    def __init__(self, *, scalable: bool, order: int = 0) -> None:
        self.memory = GuestMemory(RamBlock.create("queue", RAM))
        self.wide = scalable
        configuration = VtdConfiguration(
            scalable=scalable, aw_bits=48, caching_mode=True, dma_translation=True, reports_max_iova=True
        )
        self.unit = VtdUnit(self.memory, configuration, lambda: False)
        self.unit.write_register(reg.IQA, QUEUE | order | (reg.IQA_DW if scalable else 0))
        self.unit.write_register(reg.GCMD, reg.QIE)
        self.shift = 5 if scalable else 4

    def post(self, first: int, *descriptors: tuple[int, int]) -> None:
        for number, (low, high) in enumerate(descriptors, start=first):
            self.memory.write_u64(QUEUE + (number << self.shift), low)
            self.memory.write_u64(QUEUE + (number << self.shift) + 8, high)
        self.unit.write_register(reg.IQT, first + len(descriptors) << self.shift)

    @property
    def head(self) -> int:
        return self.unit.read_register(reg.IQH) >> self.shift

    @property
    def stopped(self) -> bool:
        return bool(self.unit.read_register(reg.FSTS) & reg.FSTS_IQE)


@pytest.fixture(params=[False, True], ids=["16", "32"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(scalable=bool(request.param))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1 | 1 << 4, 0, InvalidateContexts(None)),
        (1 | 2 << 4 | 9 << 16, 0, InvalidateContexts(None)),
        (1 | 3 << 4 | 0x18 << 32 | 2 << 48, 0, InvalidateContexts((0x18, 6))),
        (1, 0, None),
        (1 | 1 << 4, 1, None),
        (2 | 1 << 4, 0, InvalidateIotlb(None, None, None)),
        (2 | 2 << 4 | 9 << 16, 0, InvalidateIotlb(9, None, None)),
        (2 | 3 << 4 | 9 << 16, 0x200000 | 9, InvalidateIotlb(9, None, (0x200000, 0x3FFFFF))),
        (2 | 3 << 4 | 9 << 16, 0x201000 | 9, InvalidateIotlb(9, None, (0x200000, 0x3FFFFF))),
        (2 | 3 << 4 | 9 << 16, 19, None),
        (2, 0, None),
        (2 | 1 << 4 | 1 << 8, 0, None),
        (3 | 0x18 << 32, 1, Nothing()),
        (4 | 1 << 4, 0, Nothing()),
        (WAIT | 7 << 32, STATUS, Wait((STATUS, 7), interrupt=False)),
        (5 | 3 << 4 | 7 << 32, STATUS, Wait((STATUS, 7), interrupt=True)),
        (5 | 1 << 6, 0, Wait(None, interrupt=False)),
        (5, 0, None),
        (WAIT, STATUS | 2, None),
        (6 | 2 << 4 | 9 << 16 | 3 << 32, 0, InvalidateIotlb(9, 3, None)),
        (6 | 3 << 4 | 9 << 16 | 3 << 32, 0x1000, InvalidateIotlb(9, 3, (0x1000, 0x1FFF))),
        (6 | 1 << 4, 0, None),
        (7 | 9 << 16, 0, InvalidatePasids(9, None)),
        (7 | 1 << 4 | 9 << 16 | 3 << 32, 0, InvalidatePasids(9, 3)),
        (7 | 3 << 4, 0, InvalidatePasids(None, None)),
        (7 | 2 << 4, 0, None),
        (0, 0, None),
        (8 | 0x18 << 16 | 3 << 32, 0x1000 | 1 << 11, Nothing()),
        (8 | 1 << 12, 0, None),
        (8, 2, None),
        (9 | 1 << 4 | 0x18 << 16 | 3 << 32, 5 << 3, Nothing()),
        (9, 0, None),
        (9 | 1 << 4, 1, None),
        (9 | 1 << 5, 0, None),
        (3, 2, None),
        (3 | 1 << 48, 0, None),
        (4 | 1 << 48, 0, None),
        (4 | 3 << 27 | 7 << 32, 0, Nothing()),
        (10, 0, None),
        (15, 0, None),
        (2 | 1 << 4 | 1 << 9, 0, None),
    ],
)
def test_meaning_of_descriptors(low: int, high: int, expected: Command | None) -> None:
    assert decode((low, high, 0, 0), wide=True)[1] == expected


def test_descriptors_of_scalable_mode_are_unknown_outside_it() -> None:
    assert decode((7 | 3 << 4, 0, 0, 0), wide=False)[1] is None
    assert decode((6 | 2 << 4, 0, 0, 0), wide=False)[1] is None
    assert decode((2 | 1 << 4, 0, 1, 0), wide=True)[1] is None


def test_a_wait_writes_its_status_and_moves_the_head(rig: Rig) -> None:
    rig.post(0, (2 | 1 << 4, 0), (WAIT | 0xDEADBEEF << 32, STATUS))
    assert rig.memory.read_u64(STATUS) == 0xDEADBEEF
    assert rig.head == 2
    assert not rig.stopped


def test_a_wait_may_raise_the_completion_event(rig: Rig) -> None:
    rig.post(0, (5 | 1 << 4, 0))
    assert rig.unit.read_register(reg.ICS) == reg.ICS_IWC
    assert rig.unit.read_register(reg.IECTL) == reg.EVENT_MASKED | reg.EVENT_PENDING
    rig.unit.write_register(reg.ICS, reg.ICS_IWC)
    assert rig.unit.read_register(reg.ICS) == 0
    assert rig.unit.read_register(reg.IECTL) == reg.EVENT_MASKED


def test_the_queue_wraps(rig: Rig) -> None:
    size = 128 if rig.wide else 256
    wait = WAIT | 1 << 32, STATUS
    rig.post(0, *[wait] * (size - 1))
    rig.memory.write(QUEUE, bytes(32))
    rig.memory.write_u64(QUEUE + (size - 1 << rig.shift), WAIT | 2 << 32)
    rig.memory.write_u64(QUEUE + (size - 1 << rig.shift) + 8, STATUS)
    rig.unit.write_register(reg.IQT, 0)
    assert (rig.head, rig.memory.read_u64(STATUS)) == (0, 2)
    assert not rig.stopped


@pytest.mark.parametrize("bad", [(0, 0), (2, 0), (WAIT | 1 << 32, RAM), (2 | 3 << 4, 63)])
def test_a_bad_descriptor_stops_the_queue_at_its_head(rig: Rig, bad: tuple[int, int]) -> None:
    wait = WAIT | 1 << 32, STATUS
    rig.post(0, wait, bad, wait)
    assert rig.stopped
    assert rig.head == 1
    rig.post(3, wait)
    assert rig.head == 1, "a stopped queue takes no further tail"
    rig.memory.write_u64(QUEUE + (1 << rig.shift), WAIT | 9 << 32)
    rig.memory.write_u64(QUEUE + (1 << rig.shift) + 8, STATUS + 8)
    rig.unit.write_register(reg.FSTS, reg.FSTS_IQE)
    assert (rig.head, rig.memory.read_u64(STATUS + 8)) == (4, 9)
    assert not rig.stopped


def test_a_tail_beyond_the_queue_stops_it(rig: Rig) -> None:
    rig.unit.write_register(reg.IQT, 256 << rig.shift)
    assert rig.stopped
    assert rig.head == 0


def test_a_tail_between_descriptors_stops_the_wide_queue() -> None:
    rig = Rig(scalable=True)
    rig.unit.write_register(reg.IQT, 0x30)
    assert rig.stopped


def test_a_queue_outside_ram_stops() -> None:
    rig = Rig(scalable=False)
    rig.unit.write_register(reg.IQT, 0)
    rig.post(0, (WAIT, STATUS))
    rig.unit.write_register(reg.GCMD, 0)
    rig.unit.write_register(reg.IQT, 0)
    rig.unit.write_register(reg.IQA, 1 << 40)
    rig.unit.write_register(reg.GCMD, reg.QIE)
    rig.unit.write_register(reg.IQT, 0x10)
    assert rig.stopped


def test_the_queue_is_switched_off_only_when_empty_after_a_wait(rig: Rig) -> None:
    rig.unit.write_register(reg.GCMD, 0)
    assert rig.unit.read_register(reg.GSTS) & reg.QIE, "no wait was served yet"
    rig.post(0, (WAIT, STATUS))
    rig.unit.write_register(reg.GCMD, 0)
    assert not rig.unit.read_register(reg.GSTS) & reg.QIE
    assert rig.head == 0


descriptors = st.lists(
    st.tuples(
        st.builds(lambda kind, rest: kind | rest << 4, st.integers(0, 9), st.integers(0, (1 << 60) - 1))
        | st.integers(0, (1 << 64) - 1),
        st.integers(0, (1 << 64) - 1) | st.just(STATUS),
    ),
    max_size=20,
)


@given(st.booleans(), descriptors, st.integers(0, (1 << 64) - 1))
@settings(max_examples=150)
def test_no_guest_makes_it_raise(scalable: bool, posted: list[tuple[int, int]], tail: int) -> None:
    rig = Rig(scalable=scalable)
    rig.unit.address_space(0x18)
    rig.post(0, *posted)
    rig.unit.write_register(reg.IQT, tail)
    rig.unit.write_register(reg.FSTS, 0xFFFFFFFF)
    assert rig.head < (128 if scalable else 256)
