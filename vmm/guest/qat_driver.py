"""The guest's driver of one accelerator: it maps buffers, submits jobs, and checks every answer.

::

    open           map rings and index page, enable the device: its rings begin at index 0
    open slab      map its 2 MiB and the pages of its inputs
    submit         32 request entries, as the pace allows; REQUEST_TAIL; doorbell
    interrupt      completions in order: number, cookie, status, length, CRC-32 of what really lies in guest RAM
    close slab     all 32 answered and checked: unmap, so that IOVAs come and go; COMPLETION_HEAD moved on

Two slabs are open at a time, so that the device has work while one is checked. A slab that is half done when the
driver closes is opened again by the next jobs; jobs that a close drops are submitted again. The data sheet is
vfio_host/interface/qat.py. What lies beyond guest RAM is `QatState`: after a migration the driver goes on with it,
and the device, whose state moved too, is not initialised again.

A driver that misbehaves (`dma_after_unmap`) takes some slabs' output away as soon as all their jobs are submitted.
What is wrong with those answers is the guest's own doing, and counted apart.
"""

import zlib
from collections import deque
from typing import Final

import msgspec

from vfio_host.interface.qat import COMPLETION, REQUEST, Operation, Status
from vmm.guest.corpus import Chunk, Corpus, CorpusDamaged
from vmm.guest.device_rings import DeviceRings, RingsDamaged
from vmm.guest.dma import DevicePort, DmaMapper, MapFailed, Mapping
from vmm.guest.layout import SLAB_SIZE, DeviceArea
from vmm.guest.material import Material
from vmm.guest.pacing import NEVER, Pacer, RateMeter
from vmm.guest.pseudorandom import mixed_one
from vmm.guest.qat_jobs import JOBS_PER_SLAB, OUTPUT_BYTES, Job, inputs, job
from vmm.guest.qat_state import OPEN_SLABS, QatState, SlabState, decoded
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SIZE, GuestPhysicalAddress, Iova

RING_ENTRIES: Final = 64
_SUBMIT_BATCH: Final = 8
_CHECK_BATCH: Final = 8
_TAKE_AWAY_ONE_IN: Final = 4


class QatDriver:
    """One accelerator's driver. `rate` is in bytes per second that the device writes."""

    def __init__(
        self,
        memory: GuestMemory,
        area: DeviceArea,
        port: DevicePort,
        *,
        rate: int,
        seed: int,
        dma_after_unmap: bool = False,
    ) -> None:
        self._memory: Final = memory
        self._area: Final = area
        self._seed: Final = seed
        self._misbehaves: Final = dma_after_unmap
        self._corpus: Final = Corpus(memory, area.corpus)
        self.asked = rate
        self._pacer: Final = Pacer(rate)
        self._meter: Final = RateMeter()
        self._rings: Final = DeviceRings(
            memory, area.rings, port, entries=RING_ENTRIES, work=REQUEST, completion=COMPLETION
        )
        self._slabs: deque[SlabState] = deque()
        self._first, self.answered = 0, 0
        self.errors, self.own_errors, self.bytes_written = 0, 0, 0
        self.halted, self.failed = False, False

    @property
    def opened(self) -> bool:
        """Whether the device is enabled."""
        return self._rings.opened

    @property
    def submitted(self) -> int:
        """Jobs that were given to the device, counted as `answered` is."""
        return self._first + self._rings.given

    @property
    def busy(self) -> bool:
        """Whether jobs are in flight: outputs and completion are written before the tail that tells of them."""
        return self.opened and not self.failed and self._rings.completed != self._rings.given

    @property
    def idle(self) -> bool:
        """Whether every job that was submitted has been checked."""
        return not self.opened or self.failed or self._rings.checked == self._rings.given

    def boot(self, material: Material) -> None:
        """Lay out the corpus."""
        self._corpus.build(material)

    def open(self, mapper: DmaMapper) -> None:
        """Map empty rings and start the device.

        Raises:
            MapFailed: There is no room for the rings; the driver is closed.
        """
        self._rings.open(mapper)
        self._first = self.answered

    def close(self) -> None:
        """Disable the device and unmap everything; jobs in flight are dropped, and submitted again when it opens."""
        if not self.opened:
            return
        self._rings.disable()
        self.errors += 0 if self.idle else 1
        self._rings.close([mapping for slab in self._slabs for mapping in _mappings(slab)])
        self._slabs.clear()
        self._first = self.answered

    def halt(self) -> None:
        """Submit no more jobs."""
        self.halted = True

    def resume(self) -> None:
        """Submit jobs again."""
        self.halted = False
        self._rings.wake()

    def save(self) -> bytes:
        """Return the state; jobs in flight stay in flight."""
        return msgspec.msgpack.encode(
            QatState(
                rings=self._rings.base,
                first=self._first,
                submitted=self.submitted,
                answered=self.answered,
                errors=self.errors,
                own_errors=self.own_errors,
                bytes_written=self.bytes_written,
                halted=self.halted,
                failed=self.failed,
                slabs=tuple(self._slabs),
            )
        )

    def load(self, state: bytes, mapper: DmaMapper) -> None:
        """Go on where another host's driver stopped; the next step looks for completions and rings the doorbell.

        Raises:
            ProgressRefused: The bytes are no state of such a driver. Nothing was changed.
        """
        loaded = decoded(state)
        self._first, self.answered = loaded.first, loaded.answered
        self.errors, self.own_errors = loaded.errors, loaded.own_errors
        self.bytes_written, self.halted, self.failed = loaded.bytes_written, loaded.halted, loaded.failed
        self._slabs = deque(loaded.slabs)
        given, checked = loaded.submitted - loaded.first, loaded.answered - loaded.first
        self._rings.go_on(mapper, loaded.rings, given=given, checked=checked)
        self.restart_clock()

    def restart_clock(self) -> None:
        """Forget the clock: after a pause nothing is caught up, and rates are measured anew."""
        self._pacer.restart()
        self._meter.restart()

    def interrupt(self) -> None:
        """Take an interrupt: the next step looks for completions."""
        self._rings.interrupt()

    def rate(self, now_ns: int) -> float:
        """Return the achieved bytes per second that the device wrote."""
        return self._meter.rate(now_ns)

    def step(self, now_ns: int) -> int:
        """Check answers and submit jobs, at most some 0.5 ms of work; returns when the next step is due."""
        self._meter.advance(now_ns)
        mapper = self._rings.mapper
        if self.failed or mapper is None:
            return NEVER
        due = self._pacer.due(now_ns)
        try:
            more = self._rings.look(_CHECK_BATCH, lambda _: self._check_answer(mapper))
            submitted = 0 if self.halted else self._submit(due, mapper)
        except (CorpusDamaged, RingsDamaged):
            self._fail()
            return NEVER
        self._rings.ring()
        if more:
            return now_ns
        if self.halted or not self._room():
            return NEVER  # until an interrupt makes room
        return self._pacer.after_batch(now_ns, _SUBMIT_BATCH * OUTPUT_BYTES, refused=submitted == 0 and due > 0)

    def _fail(self) -> None:
        """Stop for good: what lies in guest RAM cannot be used any more."""
        self.errors += 1
        self.failed = True

    def _room(self) -> bool:
        return self._next_is_open() or len(self._slabs) < OPEN_SLABS

    def _next_is_open(self) -> bool:
        return bool(self._slabs) and self._slabs[-1].number == self.submitted // JOBS_PER_SLAB

    # ---- submission

    def _submit(self, due: int, mapper: DmaMapper) -> int:
        """Submit what is due, at most a batch; returns the bytes that it will write."""
        spent, first = 0, self.submitted
        while spent < due and self.submitted - first < _SUBMIT_BATCH and self._room():
            if not self._next_is_open() and not self._open_slab(self.submitted // JOBS_PER_SLAB, mapper):
                break
            spent += self._write_request(job(self.submitted, self._seed))
            if self._misbehaves and self.submitted % JOBS_PER_SLAB == 0:
                self._take_away(mapper)
        self._pacer.spend(spent)
        if self.submitted != first:
            self._rings.tell(doorbell=True)
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
        self._rings.give(entry)
        return chunk.plain_length if wanted.operation is Operation.DECOMPRESS else 0  # else spent when it is known

    def _chunk(self, wanted: Job) -> Chunk:
        number = inputs(wanted.slab, self._seed)[wanted.source]
        decompress = wanted.operation is Operation.DECOMPRESS
        return self._corpus.stream(number) if decompress else self._corpus.plain_chunk(number)

    def _open_slab(self, number: int, mapper: DmaMapper) -> bool:
        """Map a slab and its inputs; false when no IOVA or table page is left, to be tried again."""
        *streams, plain = inputs(number, self._seed)
        chunks = [*(self._corpus.stream(stream) for stream in streams), self._corpus.plain_chunk(plain)]
        buffers = [(GuestPhysicalAddress(chunk.address), chunk.pages * PAGE_SIZE) for chunk in chunks]
        try:
            output, *sources = mapper.map([(self._area.slab(number), SLAB_SIZE), *buffers])
        except MapFailed:
            return False
        lengths = (length for _, length in buffers)
        self._slabs.append(SlabState(number, output, tuple(zip(sources, lengths, strict=True))))
        return True

    def _take_away(self, mapper: DmaMapper) -> None:
        """Unmap the newest slab's output, now and then, while the device is about to write it (semantics 3.5)."""
        slab = self._slabs[-1]
        if mixed_one(mixed_one(self._seed) ^ slab.number) % _TAKE_AWAY_ONE_IN == 0:
            mapper.unmap([(Iova(slab.output), SLAB_SIZE)])
            self._slabs[-1] = msgspec.structs.replace(slab, taken_away=True)

    # ---- answers

    def _check_answer(self, mapper: DmaMapper) -> None:
        """Check the next answer, and close its slab if it is the last one there."""
        if not self._is_right(job(self.answered, self._seed)):
            self._count_error()
        self.answered += 1
        if self.answered % JOBS_PER_SLAB == 0:
            mapper.unmap(_mappings(self._slabs.popleft()))

    def _count_error(self) -> None:
        if self._slabs[0].taken_away:
            self.own_errors += 1
        else:
            self.errors += 1

    def _is_right(self, expected: Job) -> bool:
        """Check one answer against the corpus and against what lies in guest RAM."""
        entry = self._rings.completion(expected.number - self._first)
        number, status, length, crc, _, cookie = COMPLETION.unpack(entry)
        if (number, status, cookie) != (expected.number, Status.OK, expected.cookie) or length > OUTPUT_BYTES:
            return False
        start = self._memory.offset_of(self._area.slab(expected.slab) + expected.output_offset, OUTPUT_BYTES)
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


def _mappings(slab: SlabState) -> list[Mapping]:
    """Return what of a slab is mapped."""
    output = [] if slab.taken_away else [(Iova(slab.output), SLAB_SIZE)]
    return [*output, *((Iova(iova), length) for iova, length in slab.inputs)]


def _decompresses_to(stream: memoryview, chunk: Chunk) -> bool:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(stream, chunk.plain_length + 1)
    except zlib.error:
        return False
    return inflater.eof and len(plain) == chunk.plain_length and zlib.crc32(plain) == chunk.crc32
