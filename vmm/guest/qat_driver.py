"""The guest's driver of one accelerator: it maps buffers, submits jobs, and checks every answer.

::

    open slab      map its 2 MiB and the pages of its inputs
    submit         32 request entries, as the pace allows; REQUEST_TAIL; doorbell
    interrupt      completions in order: number, cookie, status, length, CRC-32 of what really lies in guest RAM
    close slab     all 32 answered and checked: unmap, so that IOVAs come and go; COMPLETION_HEAD moved on

Two slabs are open at a time, so that the device has work while one is checked. Rings and index page are mapped once.
The data sheet is vfio_host/interface/qat.py. What lies beyond guest RAM is `QatState`: after a migration the driver
goes on with it, and the device, whose state moved too, is not initialised again.
"""

import zlib
from collections import deque
from typing import Final

import msgspec

from vfio_host.interface.qat import COMPLETION, CONTROL_ENABLE, REQUEST, Operation, Register, Status
from vmm.guest.corpus import Chunk, Corpus, CorpusDamaged
from vmm.guest.dma import DevicePort, DmaMapper, MapFailed
from vmm.guest.host_material import Material
from vmm.guest.layout import SLAB_SIZE, DeviceArea
from vmm.guest.pacing import NEVER, SECOND, Pacer, RateMeter
from vmm.guest.qat_jobs import JOBS_PER_SLAB, OUTPUT_BYTES, Job, inputs, job
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SIZE, GuestPhysicalAddress, Iova

RING_ENTRIES: Final = 64
_OPEN_SLABS: Final = 2
_REQUESTS: Final = PAGE_SIZE
_COMPLETIONS: Final = 2 * PAGE_SIZE
_RINGS_END: Final = 3 * PAGE_SIZE
_REQUEST_TAIL, _COMPLETION_TAIL, _COMPLETION_HEAD = 0, 16, 24
_SUBMIT_BATCH: Final = 8
_CHECK_BATCH: Final = 8
_SUBMIT_EVERY_NS: Final = 5_000_000


class SlabState(msgspec.Struct, frozen=True, array_like=True):
    """An open slab: its number, its IOVA, and those of its inputs with their length in whole pages."""

    number: int
    output: int
    inputs: tuple[tuple[int, int], ...]


class QatState(msgspec.Struct, frozen=True, array_like=True):
    """Everything beyond guest RAM that the driver needs to go on."""

    submitted: int
    answered: int
    errors: int
    bytes_written: int
    halted: bool
    slabs: tuple[SlabState, ...]


class QatDriver:
    """One accelerator's driver. `rate` is in bytes per second that the device writes."""

    def __init__(
        self, memory: GuestMemory, area: DeviceArea, mapper: DmaMapper, port: DevicePort, *, rate: int, seed: int
    ) -> None:
        self._memory: Final = memory
        self._area: Final = area
        self._mapper: Final = mapper
        self._port: Final = port
        self._seed: Final = seed
        self._corpus: Final = Corpus(memory, area.corpus)
        self.asked: Final = rate
        self._pacer: Final = Pacer(rate)
        self._meter: Final = RateMeter()
        self._slabs: deque[SlabState] = deque()
        self.submitted, self.answered, self.errors, self.bytes_written = 0, 0, 0, 0
        self.halted = False
        self._interrupted, self._ring = False, False

    def boot(self, material: Material) -> None:
        """Lay out corpus and rings, and start the device."""
        self._corpus.build(material)
        rings = GuestPhysicalAddress(self._area.rings)
        self._memory.write(rings, bytes(_RINGS_END))
        base = self._mapper.map([(rings, _RINGS_END)])[0]
        for register, value in (
            (Register.REQUEST_BASE, base + _REQUESTS),
            (Register.COMPLETION_BASE, base + _COMPLETIONS),
            (Register.INDEX_BASE, base),
            (Register.RING_ENTRIES, RING_ENTRIES),
            (Register.CONTROL, CONTROL_ENABLE),
        ):
            self._port.write(register, value)

    def save(self) -> QatState:
        """Return the state; jobs in flight stay in flight."""
        return QatState(self.submitted, self.answered, self.errors, self.bytes_written, self.halted, tuple(self._slabs))

    def load(self, state: QatState) -> None:
        """Go on where another host's driver stopped.

        The next step looks for completions and rings the doorbell, since an interrupt or a doorbell may have been
        under way; both are harmless when nothing is there.
        """
        self.submitted, self.answered, self.errors = state.submitted, state.answered, state.errors
        self.bytes_written, self.halted = state.bytes_written, state.halted
        self._slabs = deque(state.slabs)
        self._interrupted, self._ring = True, self.submitted > 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Forget the clock: after a pause nothing is caught up, and rates are measured anew."""
        self._pacer.restart()
        self._meter.restart()

    def interrupt(self) -> None:
        """Take an interrupt: the next step looks for completions."""
        self._interrupted = True

    def rate(self, now_ns: int) -> float:
        """Return the achieved bytes per second that the device wrote."""
        return self._meter.rate(now_ns)

    def step(self, now_ns: int) -> int:
        """Check answers and submit jobs, at most some 0.5 ms of work; returns when the next step is due."""
        self._meter.advance(now_ns)
        if self.halted:
            return NEVER
        due = self._pacer.due(now_ns)
        try:
            more = self._interrupted and self._check_answers()
            self._interrupted = more
            submitted = self._submit(due)
        except CorpusDamaged:
            self._halt()
            return NEVER
        if more:
            return now_ns
        if not self._room():
            return NEVER  # until an interrupt makes room
        if submitted == 0 and due > 0:
            return now_ns + _SUBMIT_EVERY_NS  # no IOVA is left at this moment
        return self._pacer.moment_of(max(1, min(_SUBMIT_BATCH * OUTPUT_BYTES, self.asked * _SUBMIT_EVERY_NS // SECOND)))

    def _halt(self) -> None:
        """Stop for good: what lies in guest RAM cannot be used any more."""
        self.errors += 1
        self.halted = True

    def _room(self) -> bool:
        return self.submitted % JOBS_PER_SLAB != 0 or len(self._slabs) < _OPEN_SLABS

    # ---- submission

    def _submit(self, due: int) -> int:
        """Submit what is due, at most a batch; returns the bytes that it will write."""
        spent, first = 0, self.submitted
        while spent < due and self.submitted - first < _SUBMIT_BATCH and self._room():
            if self.submitted % JOBS_PER_SLAB == 0 and not self._open_slab(self.submitted // JOBS_PER_SLAB):
                break
            spent += self._write_request(job(self.submitted, self._seed))
            self.submitted += 1
        self._pacer.spend(spent)
        if self.submitted != first:
            self._memory.write_u64(self._area.rings + _REQUEST_TAIL, self.submitted)
            self._ring = True
        if self._ring:
            self._port.ring_doorbell()
            self._ring = False
        return spent

    def _write_request(self, wanted: Job) -> int:
        slab, chunk = self._slabs[-1], self._chunk(wanted)
        entry = REQUEST.pack(
            wanted.number,
            wanted.operation,
            0,
            slab.inputs[wanted.source][0],
            chunk.stored_length,
            0,
            slab.output + wanted.output_offset,
            OUTPUT_BYTES,
            0,
            wanted.cookie,
            0,
        )
        self._memory.write(self._area.rings + _REQUESTS + wanted.number % RING_ENTRIES * REQUEST.size, entry)
        return chunk.plain_length if wanted.operation is Operation.DECOMPRESS else 0  # else spent when it is known

    def _chunk(self, wanted: Job) -> Chunk:
        number = inputs(wanted.slab, self._seed)[wanted.source]
        decompress = wanted.operation is Operation.DECOMPRESS
        return self._corpus.stream(number) if decompress else self._corpus.plain_chunk(number)

    def _open_slab(self, number: int) -> bool:
        """Map a slab and its inputs; false when no IOVA or table page is left, to be tried again."""
        *streams, plain = inputs(number, self._seed)
        chunks = [*(self._corpus.stream(stream) for stream in streams), self._corpus.plain_chunk(plain)]
        buffers = [(GuestPhysicalAddress(chunk.address), chunk.pages * PAGE_SIZE) for chunk in chunks]
        slab = GuestPhysicalAddress(self._slab_address(number))
        try:
            output, *sources = self._mapper.map([(slab, SLAB_SIZE), *buffers])
        except MapFailed:
            return False
        lengths = (length for _, length in buffers)
        self._slabs.append(SlabState(number, output, tuple(zip(sources, lengths, strict=True))))
        return True

    def _close_slab(self) -> None:
        slab = self._slabs.popleft()
        self._mapper.unmap([(Iova(slab.output), SLAB_SIZE), *((Iova(iova), length) for iova, length in slab.inputs)])

    def _slab_address(self, number: int) -> int:
        return self._area.slabs + number % self._area.slab_count * SLAB_SIZE

    # ---- answers

    def _check_answers(self) -> bool:
        """Check up to a batch of answers; returns whether there are more."""
        tail = self._memory.read_u64(self._area.rings + _COMPLETION_TAIL)
        if not self.answered <= tail <= self.submitted:
            self._halt()
            return False
        last = min(tail, self.answered + _CHECK_BATCH)
        if last == self.answered:
            return False
        while self.answered < last:
            self.errors += 0 if self._is_right(job(self.answered, self._seed)) else 1
            self.answered += 1
            if self.answered % JOBS_PER_SLAB == 0:
                self._close_slab()
        self._memory.write_u64(self._area.rings + _COMPLETION_HEAD, self.answered)
        return tail > last

    def _is_right(self, expected: Job) -> bool:
        """Check one answer against the corpus and against what lies in guest RAM."""
        place = self._area.rings + _COMPLETIONS + expected.number % RING_ENTRIES * COMPLETION.size
        number, status, length, crc, _, cookie = COMPLETION.unpack(self._memory.read(place, COMPLETION.size))
        if (number, status, cookie) != (expected.number, Status.OK, expected.cookie) or length > OUTPUT_BYTES:
            return False
        start = self._memory.offset_of(self._slab_address(expected.slab) + expected.output_offset, OUTPUT_BYTES)
        output = self._memory.block.data[start : start + length]
        self.bytes_written += length
        self._meter.count(length)
        chunk = self._chunk(expected)
        if zlib.crc32(output) != crc:
            return False
        if expected.operation is Operation.DECOMPRESS:
            return bool(length == chunk.plain_length and crc == chunk.crc32)
        self._pacer.spend(length)
        return _decompresses_to(output, chunk)


def _decompresses_to(stream: memoryview, chunk: Chunk) -> bool:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(stream, chunk.plain_length + 1)
    except zlib.error:
        return False
    return inflater.eof and len(plain) == chunk.plain_length and zlib.crc32(plain) == chunk.crc32
