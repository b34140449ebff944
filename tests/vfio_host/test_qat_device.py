"""The accelerator: real jobs, bounded steps, and guests that lie."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.bits import ones
from tests.vfio_host.ring_driver import (
    ENTRIES,
    INPUTS,
    MEMORY_BYTES,
    OUTPUTS,
    REGISTERS,
    RingDriver,
    compressible,
    packed,
)
from tests.vfio_host.shared_memory import shared_memory
from vfio_host.devices.qat import Qat
from vfio_host.interface.qat import MAX_DESTINATION, MAX_SOURCE, Operation, Register, Status
from vfio_host.io_page_table import IoPageTable


class Bench:
    """A device with its memory, rings and a count of completion events."""

    def __init__(self) -> None:
        self.memory = shared_memory(MEMORY_BYTES)
        self.table = IoPageTable()
        self.table.map(0, MEMORY_BYTES, self.memory, 0)
        self.driver = RingDriver(self.memory.view)
        self.events = 0
        self.device = Qat(self.count)
        self.device.attach(self.table)
        for register, value in REGISTERS:
            self.device.write_register(register, value)

    def count(self) -> None:
        self.events += 1

    def run(self, limit: int = 10_000) -> int:
        self.driver.publish()
        self.device.ring()
        steps = 0
        while self.device.has_work:
            self.device.step(0)
            steps += 1
            assert steps < limit, "device never comes to rest"
        return steps

    def register(self, register: Register) -> int:
        return self.device.read_register(register)


def test_a_job_really_decompresses_through_the_io_page_table() -> None:
    bench, plain = Bench(), compressible(65536)
    bench.table.set_tracking(enable=True)
    length = bench.driver.put(INPUTS, packed(plain))
    bench.driver.request(41, length=length, cookie=99)
    bench.run()
    (answer,) = bench.driver.collect()
    assert (answer.job, answer.status, answer.length, answer.cookie) == (41, Status.OK, 65536, 99)
    assert answer.crc == zlib.crc32(plain)
    assert bytes(bench.memory.view[OUTPUTS : OUTPUTS + 65536]) == plain
    assert bench.events == 1
    assert bench.driver.indexes()[:3] == (1, 1, 1)
    assert (bench.register(Register.JOBS_DONE), bench.register(Register.BYTES_WRITTEN)) == (1, 65536)
    assert ones(bench.table.read_dirty(OUTPUTS, 65536)) == list(range(16))


@pytest.mark.parametrize("size", [1, 4096, 65535, 65536, 65537, 131072, 200_001, MAX_DESTINATION])
def test_both_operations_at_every_size(size: int) -> None:
    bench, plain = Bench(), compressible(size)
    length = bench.driver.put(INPUTS, packed(plain))
    bench.driver.request(0, length=length, capacity=size)
    bench.driver.request(
        1,
        source=OUTPUTS,
        length=size,
        destination=OUTPUTS + (1 << 20),
        capacity=MAX_DESTINATION,
        operation=Operation.COMPRESS,
    )
    bench.run()
    first, second = bench.driver.collect()
    assert (first.status, first.length, first.crc) == (Status.OK, size, zlib.crc32(plain))
    assert second.status == Status.OK
    made = bytes(bench.memory.view[OUTPUTS + (1 << 20) : OUTPUTS + (1 << 20) + second.length])
    assert zlib.decompress(made) == plain
    assert zlib.crc32(made) == second.crc


def test_many_jobs_are_answered_in_order_round_the_ring() -> None:
    bench = Bench()
    length = bench.driver.put(INPUTS, packed(compressible(4096)))
    seen: list[int] = []
    for start in range(0, 3 * ENTRIES, 48):
        for job in range(start, start + 48):
            bench.driver.request(job, length=length)
        bench.run()
        seen += [answer.job for answer in bench.driver.collect()]
    assert seen == list(range(3 * ENTRIES))


def test_a_bomb_ends_as_overflow_and_writes_within_its_capacity() -> None:
    bench = Bench()
    length = bench.driver.put(INPUTS, packed(bytes(50 << 20)))
    bench.driver.request(0, length=length, capacity=100_000)
    assert bench.run() < 10
    (answer,) = bench.driver.collect()
    assert (answer.status, answer.length) == (Status.OVERFLOW, 0)
    after = bytes(bench.memory.view[OUTPUTS + 100_000 : OUTPUTS + 400_000])
    assert after == bytes(300_000)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"length": 0}, Status.BAD_REQUEST),
        ({"length": MAX_SOURCE + 1}, Status.BAD_REQUEST),
        ({"length": 0xFFFFFFFF}, Status.BAD_REQUEST),
        ({"length": 100, "capacity": MAX_DESTINATION + 1}, Status.BAD_REQUEST),
        ({"length": 100, "operation": 3}, Status.BAD_REQUEST),
        ({"length": 100, "source": (1 << 64) - 1}, Status.FAULT),
        ({"length": 100, "source": MEMORY_BYTES - 50}, Status.FAULT),
        ({"length": 40, "source": OUTPUTS}, Status.BAD_DATA),
    ],
)
def test_bad_requests_end_as_a_status(change: dict[str, int], status: Status) -> None:
    bench = Bench()
    bench.driver.request(5, **{"length": 10, **change})
    bench.run()
    (answer,) = bench.driver.collect()
    assert (answer.job, answer.status, answer.length) == (5, status, 0)
    assert bench.register(Register.FAULTS) == (status is Status.FAULT)


def test_a_wild_destination_and_a_cut_stream_do_not_stop_the_ring() -> None:
    bench, plain = Bench(), compressible(5000)
    length = bench.driver.put(INPUTS, packed(plain))
    bench.driver.request(0, length=length, destination=1 << 60)
    bench.driver.request(1, length=length - 3)
    bench.driver.request(2, length=length)
    bench.run()
    assert [a.status for a in bench.driver.collect()] == [Status.FAULT, Status.BAD_DATA, Status.OK]


@pytest.mark.parametrize(
    ("tail", "completion_head"), [(ENTRIES + 1, 0), ((1 << 64) - 1, 0), (0, 1), (3, (1 << 64) - 1)]
)
def test_a_senseless_index_page_disables_the_ring(tail: int, completion_head: int) -> None:
    bench = Bench()
    bench.memory.view[0:8] = tail.to_bytes(8, "little")
    bench.memory.view[24:32] = completion_head.to_bytes(8, "little")
    bench.device.ring()
    bench.device.step(0)
    assert not bench.device.has_work
    assert bench.register(Register.STATUS) == 2
    assert bench.register(Register.FAULTS) == 1
    bench.memory.view[0:32] = bytes(32)
    bench.device.write_register(Register.CONTROL, 1)
    assert bench.register(Register.STATUS) == 1


def test_a_full_completion_ring_waits_and_nothing_is_lost() -> None:
    bench = Bench()
    length = bench.driver.put(INPUTS, packed(b"hello"))
    for job in range(ENTRIES):
        bench.driver.request(job, length=length)
    bench.run()
    for job in range(ENTRIES, ENTRIES + 20):
        bench.driver.request(job, length=length)
    bench.run()
    assert bench.register(Register.JOBS_DONE) == ENTRIES
    assert [a.job for a in bench.driver.collect()] == list(range(ENTRIES))
    bench.run()
    assert [a.job for a in bench.driver.collect()] == list(range(ENTRIES, ENTRIES + 20))


def test_a_ring_that_is_unmapped_stalls_until_it_is_mapped_again() -> None:
    bench = Bench()
    length = bench.driver.put(INPUTS, packed(b"hello"))
    bench.driver.request(0, length=length)
    bench.table.unmap(0, MEMORY_BYTES)
    bench.run()
    assert bench.register(Register.FAULTS) == 1
    bench.table.map(0, MEMORY_BYTES, bench.memory, 0)
    assert bench.device.has_work
    bench.run()
    assert [a.status for a in bench.driver.collect()] == [Status.OK]


def test_without_an_address_space_every_dma_faults() -> None:
    bench = Bench()
    bench.device.attach(None)
    bench.run()
    assert bench.register(Register.FAULTS) == 1
    assert bench.register(Register.STATUS) == 1


def test_registers_are_kept_while_enabled_and_empty_after_reset() -> None:
    bench = Bench()
    bench.device.write_register(Register.REQUEST_BASE, 0x7777)
    assert bench.register(Register.REQUEST_BASE) == 0x1000
    bench.device.reset()
    assert [bench.register(register) for register in Register] == [0] * len(Register)


@pytest.mark.parametrize("entries", [0, (1 << 16) + 1, (1 << 64) - 1])
def test_a_ring_of_an_impossible_size_does_not_start(entries: int) -> None:
    bench = Bench()
    bench.device.write_register(Register.CONTROL, 0)
    bench.device.write_register(Register.RING_ENTRIES, entries)
    bench.device.write_register(Register.CONTROL, 1)
    assert bench.register(Register.STATUS) == 2


@settings(max_examples=150)
@given(
    index_page=st.binary(min_size=32, max_size=32),
    ring=st.binary(max_size=512),
    bases=st.tuples(*[st.integers(0, (1 << 64) - 1) | st.integers(0, MEMORY_BYTES)] * 3),
    entries=st.integers(0, 80) | st.integers(0, (1 << 64) - 1),
    near=st.booleans(),
)
def test_no_guest_makes_the_device_raise_or_run_for_ever(
    index_page: bytes, ring: bytes, bases: tuple[int, int, int], entries: int, near: bool
) -> None:
    bench = Bench()
    bench.device.write_register(Register.CONTROL, 0)
    registers = (Register.REQUEST_BASE, Register.COMPLETION_BASE, Register.INDEX_BASE)
    for register, value in zip(registers, (0x1000, 0x10000, 0) if near else bases, strict=True):
        bench.device.write_register(register, value)
    bench.device.write_register(Register.RING_ENTRIES, entries)
    bench.memory.view[0:32] = (
        (len(ring) // 64).to_bytes(8, "little") + index_page[8:24] + bytes(8) if near else index_page
    )
    bench.memory.view[0x1000 : 0x1000 + len(ring)] = ring
    bench.device.write_register(Register.CONTROL, 1)
    bench.device.ring()
    for _ in range(400):
        if not bench.device.has_work:
            break
        bench.device.step(0)
    assert not bench.device.has_work
