"""A small device that follows the accelerator's data sheet."""

import zlib
from functools import lru_cache

from tests.vmm.guest.fresh_iovas import Mapper
from vfio_host.interface.qat import COMPLETION, REQUEST, Operation, Register, Status
from vfio_host.interface.rings import CONTROL_ENABLE, INDEXES
from vmm.guest.layout import MIB
from vmm.guest.qat_driver import RING_ENTRIES
from vmm.memory.guest_physical import GuestMemory

RAM = 64 * MIB


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
        if offset == Register.CONTROL:
            self.fetched = 0

    @property
    def enabled(self) -> bool:
        return bool(self.registers.get(Register.CONTROL, 0) & CONTROL_ENABLE)

    def ring_doorbell(self) -> None:
        self.doorbells += 1

    def work(self, most: int = 1 << 30) -> int:
        if not self.enabled:
            return 0
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
        if done:
            self.memory.write_u64(index + 8, self.fetched)
            self.memory.write_u64(index + 16, answered)
        return done

    def answer(self, entry: bytes) -> bytes:
        number, operation, _, source, length, _, destination, capacity, _, cookie, _ = REQUEST.unpack(entry)
        data = self.memory.read(self._address(source, length), length)
        output = worked_on(operation, data)
        assert len(output) <= capacity
        self.memory.write(self._address(destination, len(output)), output)
        return COMPLETION.pack(number, Status.OK, len(output), zlib.crc32(output), 0, cookie)

    def _address(self, iova: int, length: int) -> int:
        return self.mapper.translate(iova, length)


@lru_cache(maxsize=64)
def worked_on(operation: int, data: bytes) -> bytes:
    """What comes out of a job; every guest's corpus is the same, so that most inputs have been seen before."""
    return zlib.decompress(data) if operation == Operation.DECOMPRESS else zlib.compress(data)
