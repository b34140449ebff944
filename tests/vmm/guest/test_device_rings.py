"""A device's rings as its driver keeps them: what lies where, what an interrupt lets it see, and what cannot be."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.vmm.guest.fresh_iovas import Mapper
from tests.vmm.guest.small_accelerator import RAM
from vfio_host.interface.rings import INDEXES, RingRegister
from vmm.guest.device_rings import DeviceRings, RingsDamaged
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock

ADDRESS = 16 << 20
WORK, COMPLETION = struct.Struct("<QQ"), struct.Struct("<Q")
SETTING = 0x90


@dataclass
class Port:
    writes: list[tuple[int, int]] = field(default_factory=list)
    doorbells: int = 0

    def read(self, offset: int) -> int:
        return dict(self.writes)[offset]

    def write(self, offset: int, value: int) -> None:
        self.writes.append((offset, value))

    def ring_doorbell(self) -> None:
        self.doorbells += 1


@dataclass
class Bench:
    memory: GuestMemory
    port: Port
    mapper: Mapper
    rings: DeviceRings
    seen: list[int] = field(default_factory=list)

    def indexes(self) -> tuple[int, ...]:
        return INDEXES.unpack(self.memory.read(ADDRESS, INDEXES.size))

    def answer(self, count: int) -> None:
        self.memory.write_u64(ADDRESS + 16, count)
        self.rings.interrupt()


def rings_of(memory: GuestMemory, port: Port) -> DeviceRings:
    return DeviceRings(memory, ADDRESS, port, entries=300, work=WORK, completion=COMPLETION)


@pytest.fixture
def bench() -> Iterator[Bench]:
    memory, port, mapper = GuestMemory(RamBlock.create("test", RAM)), Port(), Mapper()
    made = Bench(memory, port, mapper, rings_of(memory, port))
    memory.write(ADDRESS, b"\xff" * 16384)
    made.rings.open(mapper, settings=((SETTING, 7),))
    yield made
    memory.block.close()


def test_rings_lie_one_behind_the_other_and_the_device_is_enabled_last(bench: Bench) -> None:
    base = bench.rings.base
    assert base is not None
    assert bench.mapper.mapped == {base: (ADDRESS, 12288)}
    assert bench.memory.read(ADDRESS, 12288) == bytes(12288)
    assert dict(bench.port.writes) == {
        RingRegister.WORK_BASE: base + 4096,
        RingRegister.COMPLETION_BASE: base + 4096 + 300 * WORK.size,
        RingRegister.INDEX_BASE: base,
        RingRegister.RING_ENTRIES: 300,
        SETTING: 7,
        RingRegister.CONTROL: 1,
    }
    assert bench.port.writes[-1] == (RingRegister.CONTROL, 1)


def test_work_goes_round_the_ring_and_counts_once_it_is_told(bench: Bench) -> None:
    for number in range(301):
        bench.rings.give(WORK.pack(number, number))
    assert bench.indexes() == (0, 0, 0, 0)
    bench.rings.tell(doorbell=False)
    bench.rings.ring()
    assert (bench.indexes(), bench.port.doorbells) == ((301, 0, 0, 0), 0)
    bench.rings.tell(doorbell=True)
    bench.rings.tell(doorbell=False)
    bench.rings.ring()
    bench.rings.ring()
    assert bench.port.doorbells == 1
    assert [WORK.unpack(bench.memory.read(ADDRESS + 4096 + n * WORK.size, 16))[0] for n in (0, 1, 299)] == [300, 1, 299]


def test_an_interrupt_lets_completions_be_seen_in_batches(bench: Bench) -> None:
    bench.rings.give(WORK.pack(0, 0) * 5)
    bench.answer(5)
    assert [bench.rings.look(2, bench.seen.append) for _ in range(4)] == [True, True, False, False]
    assert (bench.seen, bench.indexes()[3]) == ([0, 1, 2, 3, 4], 5)
    bench.memory.write_u64(ADDRESS + 16, 4)  # which nobody looks at without an interrupt
    assert not bench.rings.look(2, bench.seen.append)


@pytest.mark.parametrize("answered", [1, 6, 1 << 63])
def test_completions_that_cannot_be_are_not_looked_at(bench: Bench, answered: int) -> None:
    bench.rings.give(WORK.pack(0, 0) * 5)
    bench.answer(2)
    bench.rings.look(8, bench.seen.append)
    bench.answer(answered)
    with pytest.raises(RingsDamaged):
        bench.rings.look(8, bench.seen.append)
    assert (bench.seen, bench.indexes()[3]) == ([0, 1], 2)


def test_rings_that_moved_are_looked_at_and_rung(bench: Bench) -> None:
    bench.rings.give(WORK.pack(0, 0) * 5)
    bench.memory.write_u64(ADDRESS + 16, 3)
    port = Port()
    moved = rings_of(bench.memory, port)
    moved.go_on(bench.mapper, bench.rings.base, given=5, checked=1)
    moved.ring()
    moved.look(8, bench.seen.append)
    assert (port.doorbells, bench.seen, moved.opened) == (1, [1, 2], True)


def test_closed_rings_that_moved_begin_at_nothing_when_they_open(bench: Bench) -> None:
    bench.rings.disable()
    bench.rings.close([])
    assert (bench.mapper.mapped, bench.port.writes[-1]) == ({}, (RingRegister.CONTROL, 0))
    port = Port()
    moved = rings_of(bench.memory, port)
    moved.go_on(bench.mapper, None, given=4, checked=4)
    moved.ring()
    assert not moved.look(8, bench.seen.append)
    assert (moved.opened, moved.mapper, port.doorbells) == (False, None, 0)
    moved.open(bench.mapper)
    assert (moved.given, moved.checked, bench.indexes()) == (0, 0, (0, 0, 0, 0))
