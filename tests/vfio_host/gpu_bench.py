"""A graphics processor over a flat memory at IOVA 0, with jobs whose results are known from all jobs before them."""

import os
import zlib
from dataclasses import dataclass, field

import numpy as np

from tests.vfio_host.ring_driver import INPUTS, MEMORY_BYTES, OUTPUTS, REGISTERS, RingDriver
from tests.vfio_host.shared_memory import shared_memory
from vfio_host.devices.gpu import Gpu
from vfio_host.devices.migration_driver import MigrationDriver
from vfio_host.interface.gpu import MAX_LENGTH, Operation
from vfio_host.interface.qat import REQUEST, Status
from vfio_host.io_page_table import IoPageTable
from vfio_host.memory_file import MemoryFile

LOCAL = 1 << 20
MULTIPLIER = 0x9E3779B1


class Jobs(RingDriver):
    """Submits jobs and knows what must come out: `local` is what local memory holds after all that was submitted."""

    def __init__(self, view: memoryview) -> None:
        super().__init__(view)
        self.local = np.zeros(LOCAL // 8, dtype=np.uint64)
        self.expected: list[bytes] = []

    def accumulate(self, *, local: int, length: int, destination: int = OUTPUTS, multiplier: int = MULTIPLIER) -> None:
        """Submit a job of which the outcome is foreseen."""
        data = os.urandom(length)
        number = self.submitted
        source = self._source(number)
        self.put(source, data)
        self.raw(number, source=source, length=length, destination=destination, multiplier=multiplier, local=local)
        words = self.local[local // 8 : (local + length) // 8]
        words[:] = words * np.uint64(multiplier) + np.frombuffer(data, dtype=np.uint64)
        self.expected.append(words.tobytes())

    def raw(
        self,
        job: int,
        *,
        source: int = INPUTS,
        length: int = 64,
        destination: int = OUTPUTS,
        capacity: int = MAX_LENGTH,
        multiplier: int = 1,
        local: int = 0,
        operation: int = Operation.ACCUMULATE,
    ) -> None:
        entry = REQUEST.pack(job, operation, multiplier, source, length, 0, destination, capacity, 0, job * 7, local)
        self.put_request(entry)

    def check(self) -> int:
        """Check all answers that came, in their order; return how many."""
        first = self.consumed
        for answer in self.collect():
            expected = self.expected[answer.job]
            assert (answer.status, answer.length, answer.cookie) == (Status.OK, len(expected), answer.job * 7)
            assert answer.crc == zlib.crc32(expected)
        return self.consumed - first

    @staticmethod
    def _source(number: int) -> int:
        return INPUTS + (number % 4) * MAX_LENGTH


@dataclass
class Processor:
    """One host's device; several over one memory stand for hosts that a machine moves between."""

    memory: MemoryFile = field(default_factory=lambda: shared_memory(MEMORY_BYTES))
    local_bytes: int = LOCAL
    events: int = 0

    def __post_init__(self) -> None:
        self.table = IoPageTable()
        self.table.map(0, MEMORY_BYTES, self.memory, 0)
        self.device = Gpu(self.count, self.local_bytes)
        self.device.attach(self.table)
        self.migration = MigrationDriver(self.device)

    def count(self) -> None:
        self.events += 1

    def enable(self) -> None:
        for register, value in REGISTERS:
            self.device.write_register(register, value)

    def step(self) -> bool:
        busy = self.migration.running and self.device.has_work
        if busy:
            self.device.step(0)
        return busy

    def run(self, jobs: Jobs) -> None:
        jobs.publish()
        self.device.ring()
        while self.step():
            pass
