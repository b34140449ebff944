"""The whole guest: what it is asked to do, its state on the move, and what it finds to be lost."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest

from tests.vmm.guest.fresh_iovas import Mapper
from tests.vmm.guest.small_accelerator import RAM, Accelerator
from vmm.guest.cpu_workload import Pattern
from vmm.guest.driver_needs import needs_of
from vmm.guest.guest import AttachedDevice, Guest, GuestConfiguration, GuestState, GuestStateRefused
from vmm.guest.layout import MIB, plan
from vmm.guest.material import Material
from vmm.guest.pacing import SECOND
from vmm.guest.qat_state import QatState
from vmm.guest.vtd_errors import DriverStateRefused
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock


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
NEEDS = needs_of([("qat", rate) for rate in CONFIGURATION.dma_rates])


def system(block: RamBlock, devices: list[Accelerator] | None = None, mappers: list[Mapper] | None = None) -> System:
    memory = GuestMemory(block)
    layout = plan(block.size, NEEDS, 22 * MIB)
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
    block.close()


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
    block.close()


def test_pages_lost_on_the_way_are_found_inside_the_guest(whole: System) -> None:
    whole.run(2 * SECOND)
    layout = plan(RAM, NEEDS, 22 * MIB)
    whole.memory.block.words[(layout.working_set >> 12) + 77] = 0
    whole.run(2 * SECOND)
    assert whole.guest.report().errors == 1


@pytest.mark.parametrize("change", ["cut", "version", "shape", "flight", "trailing", "type"])
def test_a_state_of_another_guest_is_refused(whole: System, change: str) -> None:
    whole.run(SECOND // 2)
    data = whole.guest.save()
    state = msgspec.msgpack.decode(data, type=GuestState)
    device = state.devices[0]
    progress = msgspec.msgpack.decode(device.driver, type=QatState)
    impossible = msgspec.structs.replace(
        device, driver=msgspec.msgpack.encode(msgspec.structs.replace(progress, answered=progress.submitted + 1))
    )
    wrong = {
        "cut": data[:-1],
        "version": msgspec.msgpack.encode(msgspec.structs.replace(state, version=9)),
        "shape": msgspec.msgpack.encode(msgspec.structs.replace(state, cpus=state.cpus[:1])),
        "flight": msgspec.msgpack.encode(msgspec.structs.replace(state, devices=(state.devices[0], impossible))),
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
    block.close()


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
    block.close()
