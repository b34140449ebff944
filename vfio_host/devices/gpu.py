"""The graphics processor as a step function; interface/gpu.py is its data sheet.

::

    job:  source --DMA--> x MULTIPLIER + ... <--> local memory, slice by slice --DMA--> destination

A slice reads, computes, writes its output, and only then changes local memory: a state taken between two steps tells
how far the oldest job is, and going on from it repeats no slice. Local memory is a mapping of its own, so that what
was never written costs nothing, and a reset is a fresh one.
"""

import mmap
import zlib
from collections.abc import Callable
from typing import Final

import numpy as np

from vfio_host.devices.gpu_state import GpuSink, GpuSource, GpuState, state_size
from vfio_host.devices.ring_device import RingDevice, completion
from vfio_host.interface.gpu import LOCAL_BYTES_OFFSET, MAX_LENGTH, WORD, Operation
from vfio_host.interface.numbers import MigrationFlags
from vfio_host.interface.qat import REQUEST, Status

FLAGS: Final = MigrationFlags.STOP_COPY | MigrationFlags.P2P
_SLICE: Final = 64 << 10


class Gpu(RingDevice):
    """One graphics processor with so many bytes of local memory, a multiple of LOCAL_GRANULE."""

    def __init__(self, raise_completion: Callable[[], None], local_bytes: int) -> None:
        super().__init__(raise_completion)
        self._local = blank(local_bytes)
        self._done, self._crc = 0, 0

    @property
    def flags(self) -> MigrationFlags:
        """What its migration supports: no pre-copy, so all of local memory moves while the machine stands still."""
        return FLAGS

    @property
    def state_bytes(self) -> int:
        """How long its state is, always."""
        return state_size(len(self._local))

    def save(self) -> GpuSource:
        """Begin to read the state; local memory is read where it lies."""
        return GpuSource(self._local, lambda: GpuState(self._state, self._done, self._crc))

    def load(self) -> GpuSink:
        """Begin to write a state, into a local memory of its own."""
        return GpuSink(blank(len(self._local)), self._take)

    def reset(self) -> None:
        """Empty every register and local memory, forget every job."""
        super().reset()
        self._local = blank(len(self._local))

    def read_register(self, offset: int) -> int:
        """Read a register of region 0.

        Raises:
            CallRefused: EINVAL where the data sheet has none.
        """
        return len(self._local) if offset == LOCAL_BYTES_OFFSET else super().read_register(offset)

    def write_register(self, offset: int, value: int) -> None:
        """Write a register of region 0; read-only ones, and bases while enabled, ignore it.

        Raises:
            CallRefused: EINVAL where the data sheet has none.
        """
        if offset != LOCAL_BYTES_OFFSET:
            super().write_register(offset, value)

    def _forget(self) -> None:
        self._done, self._crc = 0, 0

    def _take(self, state: GpuState, local: mmap.mmap) -> None:
        self._take_over(state.ring)
        self._local, self._done, self._crc = local, state.done, state.crc
        self._job_written = state.done

    def _advance(self, request: bytes) -> bytes | None:
        """Do one slice of a job; return its completion entry when that ends it."""
        _, operation, multiplier, source, length, _, destination, capacity, _, _, local = REQUEST.unpack(request)
        if operation != Operation.ACCUMULATE or not 1 <= length <= MAX_LENGTH or (length | local) % WORD:
            return completion(request, Status.BAD_REQUEST)
        if local + length > len(self._local):
            return completion(request, Status.BAD_REQUEST)
        if length > capacity:
            return completion(request, Status.OVERFLOW)
        if self._done < length:
            count = min(_SLICE, length - self._done)
            self._accumulate(local + self._done, source + self._done, destination + self._done, count, multiplier)
        return completion(request, Status.OK, length, self._crc) if self._done >= length else None

    def _accumulate(self, local: int, source: int, destination: int, count: int, multiplier: int) -> None:
        words = np.frombuffer(self._local, dtype=np.uint64, count=count // WORD, offset=local)
        made = words * np.uint64(multiplier)
        made += np.frombuffer(self._dma.read(source, count), dtype=np.uint64)
        output = made.tobytes()
        self._write_output(destination, output)
        words[:] = made
        self._done += count
        self._crc = zlib.crc32(output, self._crc)


def blank(size: int) -> mmap.mmap:
    """Return memory of zeros that costs nothing until it is written; private, so that reading it costs nothing too."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
