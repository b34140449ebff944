"""A network card over a flat memory at IOVA 0, and the driver's side of its rings, which checks every packet."""

import zlib
from dataclasses import dataclass, field

from tests.vfio_host.shared_memory import shared_memory
from vfio_host.devices.migration_driver import MigrationDriver
from vfio_host.devices.nic import Nic
from vfio_host.dma_log import DmaLog
from vfio_host.interface.nic import COMPLETION, DESCRIPTOR, Register, Status
from vfio_host.interface.rings import INDEXES
from vfio_host.interface.wire import HEADER, flow_of, length_of
from vfio_host.io_page_table import IoPageTable
from vfio_host.memory_file import MemoryFile

INDEX, DESCRIPTORS, COMPLETIONS, BUFFERS = 0, 0x1000, 0x10000, 0x100000
ENTRIES, BUFFER = 64, 2048
MEMORY_BYTES = 2 << 20
SEED = 77
RATE = 50 << 20
MILLISECOND = 1_000_000


def settings(rate: int) -> tuple[tuple[Register, int], ...]:
    """Return what a driver writes to start the card."""
    return (
        (Register.INDEX_BASE, INDEX),
        (Register.DESCRIPTOR_BASE, DESCRIPTORS),
        (Register.COMPLETION_BASE, COMPLETIONS),
        (Register.RING_ENTRIES, ENTRIES),
        (Register.SEED, SEED),
        (Register.RATE, rate),
        (Register.CONTROL, 1),
    )


class Receiver:
    """Posts buffers and checks what came: `errors` in words."""

    def __init__(self, view: memoryview, expected: int = 0) -> None:
        self.view = view
        self.posted = self.checked = 0
        self.expected, self.dropped = expected, 0
        self.packets: list[int] = []
        self.errors: list[str] = []

    def post(self, count: int) -> None:
        for _ in range(count):
            place = self.posted % ENTRIES
            entry = DESCRIPTOR.pack(BUFFERS + place * BUFFER, BUFFER, self.posted & 0xFFFFFFFF)
            self.put(DESCRIPTORS + place * DESCRIPTOR.size, entry)
            self.posted += 1
        self.put(INDEX, self.posted.to_bytes(8, "little"))

    def put(self, offset: int, data: bytes) -> None:
        self.view[offset : offset + len(data)] = data

    def collect(self) -> int:
        tail, head, completion_tail, _ = INDEXES.unpack(self.view[INDEX : INDEX + INDEXES.size])
        assert head == completion_tail <= tail
        first = self.checked
        while self.checked < completion_tail:
            self._check(self.checked)
            self.checked += 1
        self.put(INDEX + 24, self.checked.to_bytes(8, "little"))
        return self.checked - first

    def _check(self, number: int) -> None:
        place = COMPLETIONS + number % ENTRIES * COMPLETION.size
        sequence, dropped, cookie, length, check, status = COMPLETION.unpack(self.view[place : place + COMPLETION.size])
        if sequence != self.expected + dropped - self.dropped:
            self.errors.append(f"packet {sequence}, not {self.expected}, {dropped - self.dropped} dropped")
        if (cookie, status) != (number, Status.OK):
            self.errors.append(f"buffer {cookie} with status {status}, not {number}")
        start = BUFFERS + number % ENTRIES * BUFFER
        data = bytes(self.view[start : start + length])
        flow, seen, seed, size, _ = HEADER.unpack(data[: HEADER.size])
        if (flow, seen, seed, size) != (flow_of(SEED, sequence), sequence, SEED, length_of(SEED, sequence)):
            self.errors.append(f"header of {seen} in buffer of {sequence}")
        if size != length or zlib.crc32(data[:-4]) != check or data[-4:] != check.to_bytes(4, "little"):
            self.errors.append(f"frame check sequence of {sequence}")
        self.expected, self.dropped = sequence + 1, dropped
        self.packets.append(sequence)


@dataclass
class Card:
    """One host's card; several over one memory stand for hosts that a machine moves between."""

    memory: MemoryFile = field(default_factory=lambda: shared_memory(MEMORY_BYTES))
    log: DmaLog | None = None
    now: int = 5 * MILLISECOND
    events: int = 0

    def __post_init__(self) -> None:
        self.table = IoPageTable()
        self.table.map(0, MEMORY_BYTES, self.memory, 0)
        self.device = Nic(self.count, self.log)
        self.device.attach(self.table)
        self.migration = MigrationDriver(self.device)

    def count(self) -> None:
        self.events += 1

    def enable(self, rate: int = RATE) -> None:
        for register, value in settings(rate):
            self.device.write_register(register, value)

    def step(self) -> None:
        """Step once, at the moment when the device is due."""
        if self.migration.running:
            self.now = max(self.now, self.device.due_ns)
            self.device.step(self.now)

    def run(self, receiver: Receiver, milliseconds: int) -> None:
        """Let time pass for card and driver, which posts what it has checked."""
        end = self.now + milliseconds * MILLISECOND
        while self.migration.running and max(self.now, self.device.due_ns) < end:
            self.step()
            receiver.post(receiver.collect())
        self.now = end

    def register(self, register: Register) -> int:
        return self.device.read_register(register)


def working(rate: int = RATE) -> tuple[Card, Receiver]:
    """Return an enabled card, and its receiver, which has posted all that the ring holds."""
    card = Card()
    receiver = Receiver(card.memory.view)
    card.enable(rate)
    receiver.post(ENTRIES)
    return card, receiver
