"""The driver's side of an accelerator's rings, in a flat memory that lies at IOVA 0."""

import os
import zlib
from dataclasses import dataclass

from vfio_host.interface.qat import COMPLETION, REQUEST, Operation, Register
from vfio_host.interface.rings import INDEXES

INDEX, REQUESTS, COMPLETIONS, INPUTS, OUTPUTS = 0, 0x1000, 0x10000, 0x100000, 0x200000
ENTRIES = 64
MEMORY_BYTES = 8 << 20
REGISTERS = (
    (Register.REQUEST_BASE, REQUESTS),
    (Register.COMPLETION_BASE, COMPLETIONS),
    (Register.INDEX_BASE, INDEX),
    (Register.RING_ENTRIES, ENTRIES),
    (Register.CONTROL, 1),
)


@dataclass(frozen=True)
class Answered:
    """A completion entry."""

    job: int
    status: int
    length: int
    crc: int
    cookie: int


class RingDriver:
    """Fills requests and reads completions; `view` is the memory."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.submitted = 0
        self.consumed = 0

    def request(
        self,
        job: int,
        *,
        source: int = INPUTS,
        length: int,
        destination: int = OUTPUTS,
        capacity: int = 65536,
        operation: int = Operation.DECOMPRESS,
        cookie: int = 7,
    ) -> None:
        self.put_request(REQUEST.pack(job, operation, 0, source, length, 0, destination, capacity, 0, cookie, 0))

    def put_request(self, entry: bytes) -> None:
        place = REQUESTS + self.submitted % ENTRIES * REQUEST.size
        self.view[place : place + REQUEST.size] = entry
        self.submitted += 1

    def publish(self) -> None:
        self.view[INDEX : INDEX + 8] = self.submitted.to_bytes(8, "little")

    def indexes(self) -> tuple[int, int, int, int]:
        tail, head, completion_tail, completion_head = INDEXES.unpack(self.view[INDEX : INDEX + INDEXES.size])
        return tail, head, completion_tail, completion_head

    def put(self, offset: int, data: bytes) -> int:
        self.view[offset : offset + len(data)] = data
        return len(data)

    def collect(self) -> list[Answered]:
        answers = []
        tail = self.indexes()[2]
        while self.consumed < tail:
            place = COMPLETIONS + self.consumed % ENTRIES * COMPLETION.size
            job, status, length, crc, _, cookie = COMPLETION.unpack(self.view[place : place + COMPLETION.size])
            answers.append(Answered(job, status, length, crc, cookie))
            self.consumed += 1
        self.view[INDEX + 24 : INDEX + 32] = self.consumed.to_bytes(8, "little")
        return answers


def compressible(size: int) -> bytes:
    words = [os.urandom(6) for _ in range(64)]
    return b"".join(words[i * i % 61] for i in range(size // 6 + 1))[:size]


def packed(data: bytes) -> bytes:
    return zlib.compress(data, 6)
