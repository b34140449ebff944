"""The accelerator's driver and the whole guest, against a small device that follows the data sheet."""

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from vfio_host.interface.qat import COMPLETION, INDEXES, REQUEST, Operation, Register, Status
from vmm.guest.cpu_workload import Pattern
from vmm.guest.dma import Buffer, MapFailed, Mapping
from vmm.guest.guest import AttachedDevice, Guest, GuestConfiguration, GuestState, GuestStateRefused
from vmm.guest.host_material import Material, read_material
from vmm.guest.layout import MIB, SLAB_SIZE, Layout, plan
from vmm.guest.pacing import SECOND
from vmm.guest.qat_driver import RING_ENTRIES, QatDriver
from vmm.guest.qat_jobs import JOBS_PER_SLAB, inputs, job
from vmm.guest.vtd_errors import DriverStateRefused
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import Iova
from vmm.memory.ram_block import RamBlock

RAM = 64 * MIB


@pytest.fixture(scope="module")
def material() -> Material:
    return read_material()


@dataclass
class Mapper:
    """Fresh IOVAs for every buffer, as with nopt; it knows what is mapped."""

    mapped: dict[int, tuple[int, int]] = field(default_factory=dict)
    next_iova: int = 1 << 32
    full: bool = False
    maps: int = 0

    def map(self, buffers: Sequence[Buffer]) -> list[Iova]:
        if self.full:
            raise MapFailed("No IOVA is left")
        iovas = []
        for address, length in buffers:
            assert address % 4096 == 0
            assert length % 4096 == 0
            assert length > 0
            self.mapped[self.next_iova] = (address, length)
            iovas.append(Iova(self.next_iova))
            self.next_iova += length + 4096
        self.maps += 1
        return iovas

    def unmap(self, mappings: Sequence[Mapping]) -> None:
        for iova, length in mappings:
            assert self.mapped.pop(iova)[1] == length

    def translate(self, iova: int, length: int) -> int:
        for base, (address, size) in self.mapped.items():
            if base <= iova and iova + length <= base + size:
                return address + iova - base
        raise AssertionError(f"DMA to 0x{iova:x}, which is not mapped")


class Accelerator:
    """The data sheet, in the smallest form: `work` answers what the ring holds."""

    def __init__(self, memory: GuestMemory, mapper: Mapper) -> None:
        self.memory, self.mapper = memory, mapper
        self.registers: dict[int, int] = {}
        self.fetched = 0
        self.doorbells = 0

    def read(self, offset: int) -> int:
        return self.registers[offset]

    def write(self, offset: int, value: int) -> None:
        self.registers[offset] = value

    def ring_doorbell(self) -> None:
        self.doorbells += 1

    def work(self, most: int = 1 << 30) -> int:
        index = self._address(self.registers[Register.INDEX_BASE], INDEXES.size)
        tail, _, answered, seen = INDEXES.unpack(self.memory.read(index, INDEXES.size))
        assert tail - seen <= RING_ENTRIES
        done = 0
        while self.fetched < tail and done < most:
            place = self.registers[Register.REQUEST_BASE] + self.fetched % RING_ENTRIES * REQUEST.size
            entry = self.memory.read(self._address(place, REQUEST.size), REQUEST.size)
            place = self.registers[Register.COMPLETION_BASE] + answered % RING_ENTRIES * COMPLETION.size
            self.memory.write(self._address(place, COMPLETION.size), self.answer(entry))
            self.fetched, answered, done = self.fetched + 1, answered + 1, done + 1
        self.memory.write_u64(index + 8, self.fetched)
        self.memory.write_u64(index + 16, answered)
        return done

    def answer(self, entry: bytes) -> bytes:
        number, operation, _, source, length, _, destination, capacity, _, cookie, _ = REQUEST.unpack(entry)
        data = self.memory.read(self._address(source, length), length)
        plain = zlib.decompress(data) if operation == Operation.DECOMPRESS else zlib.compress(data)
        assert len(plain) <= capacity
        self.memory.write(self._address(destination, len(plain)), plain)
        return COMPLETION.pack(number, Status.OK, len(plain), zlib.crc32(plain), 0, cookie)

    def _address(self, iova: int, length: int) -> int:
        return self.mapper.translate(iova, length)


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


def driver_of(memory: GuestMemory, mapper: Mapper, device: Accelerator, layout: Layout) -> QatDriver:
    return QatDriver(memory, layout.devices[0], mapper, device, rate=200 * MIB, seed=3)


@pytest.fixture
def bench(material: Material) -> Iterator[Bench]:
    memory = GuestMemory(RamBlock.create("test", RAM))
    memory.log.enabled = True
    layout, mapper = plan(RAM, (8 * MIB,), 0), Mapper()
    device = Accelerator(memory, mapper)
    driver = driver_of(memory, mapper, device, layout)
    driver.boot(material)
    driver.step(0)
    yield Bench(memory, mapper, device, driver, layout)
    os.close(memory.block.descriptor)


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
    assert bench.driver.halted
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
    bench.turn()
    assert (bench.driver.halted, bench.driver.errors) == (True, 1)


def test_jobs_in_flight_survive_a_migration(bench: Bench) -> None:
    for _ in range(9):
        bench.turn(most=5)
    assert bench.driver.submitted > bench.driver.answered
    block = RamBlock.create("copy", RAM)
    block.words[:] = bench.memory.block.words
    memory = GuestMemory(block)
    device = Accelerator(memory, bench.mapper)
    device.registers, device.fetched = dict(bench.device.registers), bench.device.fetched
    driver = driver_of(memory, bench.mapper, device, bench.layout)
    state = bench.driver.save()
    driver.load(msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=type(state)))
    assert driver.save() == state
    moved = Bench(memory, bench.mapper, device, driver, bench.layout, now=3)
    for _ in range(40):
        moved.turn()
    assert device.doorbells > 0
    assert driver.answered > state.submitted + JOBS_PER_SLAB
    assert driver.errors == 0
    os.close(block.descriptor)


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


@dataclass
class System:
    """A guest with two devices of its own time."""

    guest: Guest
    devices: list[Accelerator]
    mappers: list[Mapper]
    memory: GuestMemory
    now: int = 0

    def run(self, nanoseconds: int) -> None:
        end = self.now + nanoseconds
        while self.now < end:
            due = self.guest.step(self.now)
            self.now = min(end, max(self.now + 200_000, due))
            for index, device in enumerate(self.devices):
                if device.work():
                    self.guest.interrupt(index)


CONFIGURATION = GuestConfiguration(
    vcpus=2, cpu_dirty_rate=20 * MIB, pattern=Pattern.UNIFORM, seed=5, dma_rates=(10 * MIB, 5 * MIB)
)


def system(block: RamBlock, devices: list[Accelerator] | None = None, mappers: list[Mapper] | None = None) -> System:
    memory = GuestMemory(block)
    layout = plan(block.size, CONFIGURATION.dma_rates, 22 * MIB)
    mappers = mappers or [Mapper(), Mapper()]
    devices = devices or [Accelerator(memory, mapper) for mapper in mappers]
    for device in devices:
        device.memory = memory
    attached = [AttachedDevice(mapper, device) for mapper, device in zip(mappers, devices, strict=True)]
    return System(Guest(memory, CONFIGURATION, layout, attached), devices, mappers, memory)


@pytest.fixture
def whole(material: Material) -> Iterator[System]:
    block = RamBlock.create("test", RAM)
    made = system(block)
    made.guest.boot(material)
    yield made
    os.close(block.descriptor)


def test_a_guest_meets_what_is_asked(whole: System) -> None:
    whole.run(3 * SECOND)
    report = whole.guest.report()
    assert report.errors == 0
    assert report.dirty_bytes_per_s == pytest.approx(20 * MIB, rel=0.02)
    assert report.dma_bytes_per_s == pytest.approx(15 * MIB, rel=0.05)
    assert (report.asked_dirty_bytes_per_s, report.asked_dma_bytes_per_s) == (20 * MIB, 15 * MIB)
    assert report.jobs_done > 3 * 15 * 16 - 64
    assert report.pages_written > 3 * 20 * 256 - 256


def test_a_guest_that_waits_is_asked_again_within_a_second(whole: System) -> None:
    assert 0 <= whole.guest.step(10**15) <= 10**15 + SECOND


def test_a_guest_moves_and_its_clock_is_another(whole: System) -> None:
    whole.run(SECOND)
    before = whole.guest.report()
    data = whole.guest.save()
    assert whole.guest.save() == data
    block = RamBlock.create("copy", RAM)
    block.words[:] = whole.memory.block.words
    moved = system(block, whole.devices, whole.mappers)
    moved.guest.load(data)
    assert moved.guest.save() == data
    moved.now = 12345
    moved.run(100_000_000)
    burst = moved.guest.report().pages_written - before.pages_written
    assert burst <= 20 * 256 // 10 + 4
    moved.run(2 * SECOND)
    report = moved.guest.report()
    assert report.errors == 0
    assert report.jobs_done > before.jobs_done + 15 * 16
    assert report.dirty_bytes_per_s == pytest.approx(20 * MIB, rel=0.02)
    os.close(block.descriptor)


def test_pages_lost_on_the_way_are_found_inside_the_guest(whole: System) -> None:
    whole.run(2 * SECOND)
    layout = plan(RAM, CONFIGURATION.dma_rates, 22 * MIB)
    whole.memory.block.words[(layout.working_set >> 12) + 77] = 0
    whole.run(2 * SECOND)
    assert whole.guest.report().errors == 1


@pytest.mark.parametrize("change", ["cut", "version", "shape", "flight", "trailing", "type"])
def test_a_state_of_another_guest_is_refused(whole: System, change: str) -> None:
    whole.run(SECOND // 2)
    data = whole.guest.save()
    state = msgspec.msgpack.decode(data, type=GuestState)
    driver = state.drivers[0]
    impossible = msgspec.structs.replace(driver, answered=driver.submitted + 1)
    wrong = {
        "cut": data[:-1],
        "version": msgspec.msgpack.encode(msgspec.structs.replace(state, version=9)),
        "shape": msgspec.msgpack.encode(msgspec.structs.replace(state, cpus=state.cpus[:1])),
        "flight": msgspec.msgpack.encode(msgspec.structs.replace(state, drivers=(impossible, state.drivers[1]))),
        "trailing": data + b"\0",
        "type": msgspec.msgpack.encode({"version": 1}),
    }
    before = whole.guest.save()
    with pytest.raises(GuestStateRefused):
        whole.guest.load(wrong[change])
    assert whole.guest.save() == before


def test_a_guest_of_a_vcpu_without_devices_boots() -> None:
    block = RamBlock.create("test", RAM)
    configuration = GuestConfiguration(vcpus=1, cpu_dirty_rate=0, pattern=Pattern.ZIPF, seed=1, dma_rates=())
    guest = Guest(GuestMemory(block), configuration, plan(RAM, (), 0), [])
    guest.boot()
    assert guest.step(5) == 5 + SECOND
    twin = Guest(GuestMemory(block), configuration, plan(RAM, (), 0), [])
    twin.load(guest.save())
    assert twin.report().errors == 0
    os.close(block.descriptor)


@dataclass
class Kernel:
    """An IOMMU driver that only remembers."""

    state: bytes = b"first"
    boots: int = 0

    def boot(self) -> None:
        self.boots += 1

    def save(self) -> bytes:
        return self.state

    def load(self, data: bytes) -> None:
        if data == b"spoilt":
            raise DriverStateRefused("Bytes are not a state")
        self.state = data


def test_the_state_of_the_iommu_driver_moves_with_the_guest() -> None:
    block = RamBlock.create("test", RAM)
    configuration = GuestConfiguration(vcpus=1, cpu_dirty_rate=0, pattern=Pattern.ZIPF, seed=1, dma_rates=())
    kernels = [Kernel(b"one"), Kernel(b"two")]
    guest, twin = (Guest(GuestMemory(block), configuration, plan(RAM, (), 0), [], kernel) for kernel in kernels)
    guest.boot()
    twin.load(guest.save())
    assert [(kernel.state, kernel.boots) for kernel in kernels] == [(b"one", 1), (b"one", 0)]
    kernels[0].state = b"spoilt"
    with pytest.raises(GuestStateRefused, match="not a state"):
        twin.load(guest.save())
    os.close(block.descriptor)
