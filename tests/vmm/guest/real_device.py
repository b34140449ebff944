"""A guest's driver on a device of the host, in one process: the device's DMA goes where the driver's mapper says."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.vmm.guest.fresh_iovas import Mapper
from vfio_host.devices.hardware import MigratableHardware
from vfio_host.devices.migration_driver import MigrationDriver
from vfio_host.interface.numbers import DeviceState
from vfio_host.io_page_table import IoPageTable
from vfio_host.memory_file import MemoryFile
from vmm.guest.device_driver import DeviceDriver
from vmm.guest.dma import Buffer, Mapping
from vmm.guest.driver_needs import needs_of
from vmm.guest.drivers import DRIVERS
from vmm.guest.layout import MIB, Layout, plan
from vmm.guest.material import Material
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import Iova
from vmm.memory.ram_block import RamBlock

RAM = 64 * MIB


class TableMapper(Mapper):
    """Maps in the device's table too, at once."""

    def __init__(self, table: IoPageTable, memory: MemoryFile) -> None:
        super().__init__()
        self.table, self.memory = table, memory

    def map(self, buffers: Sequence[Buffer]) -> list[Iova]:
        iovas = super().map(buffers)
        for iova, (address, length) in zip(iovas, buffers, strict=True):
            self.table.map(iova, length, self.memory, address)
        return iovas

    def unmap(self, mappings: Sequence[Mapping]) -> None:
        super().unmap(mappings)
        for iova, length in mappings:
            assert self.table.unmap(iova, length) == length


@dataclass
class DevicePort:
    """The device's registers and doorbell."""

    hardware: MigratableHardware
    doorbells: int = 0

    def read(self, offset: int) -> int:
        return self.hardware.read_register(offset)

    def write(self, offset: int, value: int) -> None:
        self.hardware.write_register(offset, value)

    def ring_doorbell(self) -> None:
        self.doorbells += 1
        self.hardware.ring()


class Pair:
    """A driver and its device under one clock; the device's completion event is the driver's interrupt."""

    def __init__(
        self,
        make: Callable[[Callable[[], None]], MigratableHardware],
        model: str,
        *,
        rate: int,
        block: RamBlock,
        mapper: TableMapper | None = None,
        now: int = 0,
    ) -> None:
        self.make, self.model, self.asked = make, model, rate
        self.block = block
        self.memory = GuestMemory(block)
        self.memory.log.enabled = True
        self.hardware = make(self.interrupt)
        self.migration = MigrationDriver(self.hardware)
        ram = MemoryFile(block.descriptor, block.size)
        self.mapper = mapper or TableMapper(IoPageTable(), ram)
        self.hardware.attach(self.mapper.table)
        self.port = DevicePort(self.hardware)
        self.layout: Layout = plan(block.size, needs_of([(model, rate)]), 0)
        self.driver: DeviceDriver = DRIVERS[model](self.memory, self.layout.devices[0], self.port, rate=rate, seed=3)
        self.now, self.due = now, now

    def interrupt(self) -> None:
        self.driver.interrupt()
        self.due = 0

    def run(self, milliseconds: int) -> None:
        end = self.now + milliseconds * 1_000_000
        while self.now < end:
            if self.due <= self.now:
                self.due = self.driver.step(self.now)
            device_due = self.hardware.due_ns if self.migration.running else end
            if device_due <= self.now:
                self.hardware.step(self.now)
            self.now = min(end, max(self.now + 20_000, min(self.due, device_due)))

    def wake(self) -> None:
        self.due = 0

    def moved(self) -> "Pair":
        """Return the pair on another host, over the same RAM and mappings; this one does nothing any more."""
        stream = self.migration.set_state(DeviceState.STOP_COPY)
        assert stream is not None
        other = Pair(self.make, self.model, rate=self.asked, block=self.block, mapper=self.mapper, now=self.now // 2)
        loading = other.migration.set_state(DeviceState.RESUMING)
        assert loading is not None
        while data := stream.read(1 << 20):
            loading.write(data)
        state = self.driver.save()
        other.driver.load(state, self.mapper)
        assert other.driver.save() == state
        other.migration.set_state(DeviceState.RUNNING)
        return other


@contextmanager
def pair(
    make: Callable[[Callable[[], None]], MigratableHardware], model: str, rate: int, material: Material
) -> Iterator[Pair]:
    block = RamBlock.create("test", RAM)
    made = Pair(make, model, rate=rate, block=block)
    made.driver.boot(material)
    made.driver.open(made.mapper)
    yield made
    block.close()
