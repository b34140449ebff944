"""The accelerator's driver, against a small device that follows the data sheet."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest

from tests.vmm.guest.fresh_iovas import Mapper
from tests.vmm.guest.small_accelerator import RAM, Accelerator
from vfio_host.interface.qat import COMPLETION, Operation, Status
from vmm.guest.device_driver import ProgressRefused
from vmm.guest.driver_needs import needs_of
from vmm.guest.layout import MIB, SLAB_SIZE, Layout, plan
from vmm.guest.material import Material
from vmm.guest.pacing import SECOND
from vmm.guest.qat_driver import QatDriver
from vmm.guest.qat_jobs import JOBS_PER_SLAB, inputs, job
from vmm.guest.qat_state import QatState
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock


@dataclass
class Bench:
    memory: GuestMemory
    mapper: Mapper
    device: Accelerator
    driver: QatDriver
    layout: Layout
    now: int = 0

    def turn(self, most: int = 1 << 30) -> None:
        """Let driver and device work once each."""
        self.now += 5_000_000
        self.driver.step(self.now)
        if self.device.work(most):
            self.driver.interrupt()


def driver_of(memory: GuestMemory, device: Accelerator, layout: Layout, *, misbehaves: bool = False) -> QatDriver:
    return QatDriver(memory, layout.devices[0], device, rate=200 * MIB, seed=3, dma_after_unmap=misbehaves)


@pytest.fixture
def bench(material: Material) -> Iterator[Bench]:
    memory = GuestMemory(RamBlock.create("test", RAM))
    memory.log.enabled = True
    layout, mapper = plan(RAM, needs_of([("qat", 8 * MIB)]), 0), Mapper()
    device = Accelerator(memory, mapper)
    driver = driver_of(memory, device, layout)
    driver.boot(material)
    driver.open(mapper)
    driver.step(0)
    yield Bench(memory, mapper, device, driver, layout)
    memory.block.close()


def test_jobs_are_functions_of_their_number() -> None:
    jobs = [job(number, 3) for number in range(4 * JOBS_PER_SLAB)]
    assert [j.number for j in jobs] == list(range(len(jobs)))
    assert len({j.cookie for j in jobs}) == len(jobs)
    assert sum(j.operation is Operation.COMPRESS for j in jobs) == len(jobs) // 16
    assert {j.output_offset for j in jobs if j.slab == 1} == {n * (64 << 10) for n in range(32)}
    assert len({inputs(slab, 3) for slab in range(100)}) > 90


def test_every_answer_is_checked_and_slabs_come_and_go(bench: Bench) -> None:
    for _ in range(60):
        bench.turn()
    assert bench.driver.answered > 6 * JOBS_PER_SLAB
    assert bench.driver.errors == 0
    assert bench.device.doorbells > 0
    slabs = [entry for entry in bench.mapper.mapped.values() if entry[1] == SLAB_SIZE]
    assert len(slabs) <= 2
    assert bench.mapper.maps > 6
    assert bench.driver.bytes_written > bench.driver.answered * 60_000 * 15 // 16


def test_a_device_with_nothing_in_flight_never_lacks_work(bench: Bench) -> None:
    while bench.driver.submitted < 2 * JOBS_PER_SLAB:
        bench.now += 5_000_000
        bench.driver.step(bench.now)
    assert bench.driver.step(bench.now + SECOND) > bench.now + 2 * SECOND
    assert bench.driver.submitted == 2 * JOBS_PER_SLAB
    while bench.driver.answered < JOBS_PER_SLAB:
        bench.device.work(8)
        bench.driver.interrupt()
        bench.driver.step(bench.now + SECOND)
    assert bench.driver.submitted > 2 * JOBS_PER_SLAB


def test_output_that_was_lost_is_an_error(bench: Bench) -> None:
    bench.turn()
    start = bench.memory.offset_of(bench.layout.devices[0].slabs)
    bench.memory.block.words[(start >> 12) + 3] = 0
    bench.turn()
    assert bench.driver.errors == 1
    for _ in range(20):
        bench.turn()
    assert bench.driver.errors == 1


def test_a_lost_page_of_an_input_or_of_the_index_is_an_error(bench: Bench) -> None:
    bench.memory.block.words[bench.memory.offset_of(bench.layout.devices[0].corpus) >> 12] = 0
    for _ in range(10):
        bench.turn()
    assert bench.driver.failed
    assert bench.driver.errors == 1


@pytest.mark.parametrize("change", ["number", "status", "length", "crc", "cookie", "compressed"])
def test_a_wrong_answer_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    right = bench.device.answer
    target = 15 if change == "compressed" else 2

    def wrong(entry: bytes) -> bytes:
        number, status, length, crc, zero, cookie = COMPLETION.unpack(right(entry))
        if number != target:
            return COMPLETION.pack(number, status, length, crc, zero, cookie)
        changed = {
            "number": (number + 1, status, length, crc, zero, cookie),
            "status": (number, int(Status.FAULT), length, crc, zero, cookie),
            "length": (number, status, length - 1, crc, zero, cookie),
            "crc": (number, status, length, crc ^ 1, zero, cookie),
            "cookie": (number, status, length, crc, zero, cookie ^ 1),
            "compressed": (number, status, 0, 0, zero, cookie),
        }
        return COMPLETION.pack(*changed[change])

    monkeypatch.setattr(bench.device, "answer", wrong)
    for _ in range(12):
        bench.turn()
    assert bench.driver.answered > 16
    assert bench.driver.errors == 1


def test_an_index_page_that_cannot_be_halts_the_driver(bench: Bench) -> None:
    bench.turn()
    bench.memory.write_u64(bench.layout.devices[0].rings + 16, 1000)
    bench.driver.interrupt()
    submitted, doorbells = bench.driver.submitted, bench.device.doorbells
    bench.turn()
    assert (bench.driver.failed, bench.driver.errors) == (True, 1)
    assert (bench.driver.submitted, bench.device.doorbells) == (submitted, doorbells)


def test_jobs_in_flight_survive_a_migration(bench: Bench) -> None:
    for _ in range(9):
        bench.turn(most=5)
    assert bench.driver.submitted > bench.driver.answered
    block = RamBlock.create("copy", RAM)
    block.words[:] = bench.memory.block.words
    memory = GuestMemory(block)
    device = Accelerator(memory, bench.mapper)
    device.registers, device.fetched = dict(bench.device.registers), bench.device.fetched
    driver = driver_of(memory, device, bench.layout)
    state = bench.driver.save()
    driver.load(state, bench.mapper)
    assert driver.save() == state
    moved = Bench(memory, bench.mapper, device, driver, bench.layout, now=3)
    for _ in range(40):
        moved.turn()
    assert device.doorbells > 0
    assert driver.answered > bench.driver.submitted + JOBS_PER_SLAB
    assert driver.errors == 0
    block.close()


def test_without_an_iova_the_driver_waits_and_goes_on(bench: Bench) -> None:
    bench.mapper.full = True
    bench.now += SECOND
    due = bench.driver.step(bench.now)
    assert bench.now < due < bench.now + SECOND
    assert bench.driver.submitted == 0
    bench.mapper.full = False
    for _ in range(5):
        bench.turn()
    assert bench.driver.answered > 0


def test_a_halted_driver_finishes_and_goes_on_where_it_was(bench: Bench) -> None:
    for _ in range(7):
        bench.turn(most=5)
    bench.driver.halt()
    assert bench.driver.busy
    submitted = bench.driver.submitted
    for _ in range(20):
        bench.turn(most=5)
    assert (bench.driver.idle, bench.driver.busy, bench.driver.submitted) == (True, False, submitted)
    bench.driver.resume()
    for _ in range(20):
        bench.turn(most=5)
    assert bench.driver.answered > submitted
    assert bench.driver.errors == 0


def test_a_driver_opens_again_on_another_mapper_in_the_middle_of_a_slab(bench: Bench) -> None:
    for turns in (3, 4, 6, 9):
        for _ in range(turns):
            bench.turn(most=3)
        bench.driver.halt()
        while not bench.driver.idle:
            bench.turn(most=3)
        before = bench.driver.answered
        bench.driver.close()
        assert not bench.mapper.mapped
        assert not bench.device.enabled
        assert bench.driver.step(bench.now) > bench.now + SECOND
        bench.mapper = bench.device.mapper = Mapper(next_iova=7 << 30)
        bench.driver.open(bench.mapper)
        bench.driver.resume()
        for _ in range(3):
            bench.turn()
        assert bench.driver.answered > before
    assert bench.driver.answered % JOBS_PER_SLAB != 0
    assert bench.driver.errors == 0


def test_a_close_drops_what_is_in_flight_once(bench: Bench) -> None:
    for _ in range(4):
        bench.turn(most=3)
    answered = bench.driver.answered
    assert bench.driver.submitted > answered
    bench.driver.close()
    bench.driver.close()
    assert (bench.driver.errors, bench.driver.submitted, bench.driver.idle) == (1, answered, True)
    bench.driver.open(bench.mapper)
    for _ in range(20):
        bench.turn()
    assert bench.driver.answered > answered + JOBS_PER_SLAB
    assert bench.driver.errors == 1


@pytest.mark.parametrize("change", [{"answered": -1}, {"slabs": ()}, {"rings": None}, {"first": 1 << 40}])
def test_a_state_that_cannot_be_is_refused(bench: Bench, change: dict[str, object]) -> None:
    bench.turn(most=1)
    state = msgspec.msgpack.decode(bench.driver.save(), type=QatState)
    before = bench.driver.save()
    for wrong in (msgspec.msgpack.encode(msgspec.structs.replace(state, **change)), before + b"\0", b"\xc1"):
        with pytest.raises(ProgressRefused):
            bench.driver.load(wrong, bench.mapper)
    assert bench.driver.save() == before
