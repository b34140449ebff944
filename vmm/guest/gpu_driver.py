"""The guest's driver of one graphics processor: it submits jobs whose results tell of all local memory went through.

::

    open           map rings and index page, enable the device: its rings begin at index 0
    open slab      map its 2 MiB and the inputs of its jobs
    submit         request entries, as the pace allows; REQUEST_TAIL; doorbell
    interrupt      completions in order; output in guest RAM = input x a factor that follows from the job's number
    close slab     all 32 answered and checked: unmap, so that IOVAs come and go; COMPLETION_HEAD moved on

If one visit of one tile were lost or done twice, on the way to another host above all, every later answer of that tile
would be wrong. The data sheet is vfio_host/interface/gpu.py, the jobs are gpu_jobs. What lies beyond guest RAM is
`GpuProgress`. Jobs that a close drops leave tiles of which nobody knows how far they got; the next open begins anew.
"""

import zlib
from collections import deque
from typing import Final

import msgspec
import numpy as np

from vfio_host.interface.gpu import LOCAL_BYTES_OFFSET, Operation
from vfio_host.interface.qat import COMPLETION, REQUEST, Status
from vmm.guest.device_rings import DeviceRings, RingsDamaged
from vmm.guest.dma import DevicePort, DmaMapper, MapFailed, Mapping
from vmm.guest.gpu_jobs import INPUTS, INPUTS_PER_SLAB, JOBS_PER_SLAB, TILE_BYTES, Job, first_chunk, job
from vmm.guest.gpu_progress import OPEN_SLABS, GpuProgress, decoded
from vmm.guest.layout import SLAB_SIZE, DeviceArea
from vmm.guest.material import Material
from vmm.guest.pacing import NEVER, Pacer, RateMeter
from vmm.guest.pseudorandom import mixed_one
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import GuestPhysicalAddress, Iova

RING_ENTRIES: Final = JOBS_PER_SLAB * OPEN_SLABS
_INPUT_BYTES: Final = INPUTS_PER_SLAB * TILE_BYTES
_BATCH: Final = 4


class GpuDriver:
    """One graphics processor's driver. `rate` is in bytes per second that the device writes."""

    def __init__(self, memory: GuestMemory, area: DeviceArea, port: DevicePort, *, rate: int, seed: int) -> None:
        self._memory: Final = memory
        self._area: Final = area
        self._port: Final = port
        self._seed: Final = seed
        self.asked = rate
        self._pacer: Final = Pacer(rate)
        self._meter: Final = RateMeter()
        self._rings: Final = DeviceRings(
            memory, area.rings, port, entries=RING_ENTRIES, work=REQUEST, completion=COMPLETION
        )
        self._tiles = 0
        self._slabs: deque[tuple[int, int]] = deque()
        self.answered = 0
        self.errors, self.own_errors, self.bytes_written = 0, 0, 0
        self.halted, self.failed = False, False

    @property
    def opened(self) -> bool:
        """Whether the device is enabled."""
        return self._rings.opened

    @property
    def busy(self) -> bool:
        """Whether jobs are in flight: outputs and completion are written before the tail that tells of them."""
        return self.opened and not self.failed and self._rings.completed != self._rings.given

    @property
    def idle(self) -> bool:
        """Whether every job that was submitted has been checked."""
        return not self.opened or self.failed or self._rings.checked == self._rings.given

    def boot(self, material: Material) -> None:
        """Lay out the inputs: text and code in turn."""
        for number in range(INPUTS):
            source = material.code if number % 2 else material.text
            start = number * max(1, len(source) - TILE_BYTES) // INPUTS
            self._memory.write(self._area.corpus + number * TILE_BYTES, source[start : start + TILE_BYTES])

    def open(self, mapper: DmaMapper) -> None:
        """Map empty rings and start the device.

        Raises:
            MapFailed: There is no room for the rings; the driver is closed.
        """
        self._rings.open(mapper)
        self._tiles = max(1, self._port.read(LOCAL_BYTES_OFFSET) // TILE_BYTES)

    def close(self) -> None:
        """Disable the device and unmap everything; jobs in flight are dropped, which is an error."""
        if not self.opened:
            return
        self._rings.disable()
        self.errors += 0 if self.idle else 1
        self._rings.close([mapping for slab in self._slabs for mapping in _mappings(slab)])
        self._slabs.clear()
        self._tiles = 0

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
            GpuProgress(
                rings=self._rings.base,
                tiles=self._tiles,
                submitted=self._rings.given,
                checked=self._rings.checked,
                answered=self.answered,
                errors=self.errors,
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
        self._tiles, self._slabs, self.answered = loaded.tiles, deque(loaded.slabs), loaded.answered
        self.errors, self.bytes_written = loaded.errors, loaded.bytes_written
        self.halted, self.failed = loaded.halted, loaded.failed
        self._rings.go_on(mapper, loaded.rings, given=loaded.submitted, checked=loaded.checked)
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
            more = self._rings.look(_BATCH, lambda number: self._check_answer(number, mapper))
        except RingsDamaged:
            self.errors, self.failed = self.errors + 1, True
            return NEVER
        submitted = 0 if self.halted else self._submit(due, mapper)
        self._rings.ring()
        if more:
            return now_ns
        if self.halted or not self._room():
            return NEVER  # until an interrupt makes room
        return self._pacer.after_batch(now_ns, _BATCH * TILE_BYTES, refused=submitted == 0 and due > 0)

    def _room(self) -> bool:
        return self._rings.given % JOBS_PER_SLAB != 0 or len(self._slabs) < OPEN_SLABS

    # ---- submission

    def _submit(self, due: int, mapper: DmaMapper) -> int:
        """Submit what is due, at most a batch; returns the bytes that it will write."""
        rings = self._rings
        first = rings.given
        while (rings.given - first) * TILE_BYTES < due and rings.given - first < _BATCH and self._room():
            wanted = job(rings.given, self._tiles)
            if wanted.number % JOBS_PER_SLAB == 0 and not self._open_slab(wanted, mapper):
                break
            rings.give(self._request(wanted))
        spent = (rings.given - first) * TILE_BYTES
        self._pacer.spend(spent)
        if spent:
            rings.tell(doorbell=True)
        return spent

    def _open_slab(self, first: Job, mapper: DmaMapper) -> bool:
        """Map a slab and its inputs; false when no IOVA or table page is left, to be tried again."""
        inputs = GuestPhysicalAddress(self._area.corpus + first_chunk(first.tile) * TILE_BYTES)
        try:
            output, source = mapper.map([(self._area.slab(first.slab), SLAB_SIZE), (inputs, _INPUT_BYTES)])
        except MapFailed:
            return False
        self._slabs.append((output, source))
        return True

    def _request(self, wanted: Job) -> bytes:
        output, inputs = self._slabs[-1]
        return REQUEST.pack(
            wanted.number,
            Operation.ACCUMULATE,
            wanted.multiplier,
            inputs + (wanted.chunk - first_chunk(wanted.tile)) * TILE_BYTES,
            TILE_BYTES,
            0,
            output + wanted.output_offset,
            TILE_BYTES,
            0,
            self._cookie(wanted),
            wanted.local_offset,
        )

    def _cookie(self, wanted: Job) -> int:
        return mixed_one(mixed_one(self._seed) ^ wanted.number)

    # ---- answers

    def _check_answer(self, number: int, mapper: DmaMapper) -> None:
        """Check the next answer, and close its slab if it is the last one there."""
        self.errors += 0 if self._is_right(job(number, self._tiles)) else 1
        self.answered += 1
        if (number + 1) % JOBS_PER_SLAB == 0:
            mapper.unmap(_mappings(self._slabs.popleft()))

    def _is_right(self, expected: Job) -> bool:
        """Check one answer: the entry, and output in guest RAM against what the input in guest RAM must become."""
        number, status, length, crc, _, cookie = COMPLETION.unpack(self._rings.completion(expected.number))
        if (number, status, length) != (expected.number, Status.OK, TILE_BYTES) or cookie != self._cookie(expected):
            return False
        self.bytes_written += length
        self._meter.count(length)
        start = self._memory.offset_of(self._area.slab(expected.slab) + expected.output_offset, TILE_BYTES)
        output = self._memory.block.data[start : start + TILE_BYTES]
        if zlib.crc32(output) != crc:
            return False
        words = TILE_BYTES // 8
        outcome = self._memory.words(self._area.corpus + expected.chunk * TILE_BYTES, words) * np.uint64(
            expected.factor
        )
        return bool(np.array_equal(np.frombuffer(output, dtype=np.uint64), outcome))


def _mappings(slab: tuple[int, int]) -> list[Mapping]:
    """Return what of a slab is mapped."""
    output, inputs = slab
    return [(Iova(output), SLAB_SIZE), (Iova(inputs), _INPUT_BYTES)]
