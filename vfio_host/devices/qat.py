"""The accelerator as a step function over guest memory; interface/qat.py is its data sheet.

::

    doorbell --> fetch (index page, request ring) --> in flight, at most 16 --> engine, one slice a step
                                                                                   |
    completion event <-- REQUEST_HEAD, COMPLETION_TAIL <-- completion ring <-------' output, slice by slice

A step does one bounded piece of work: a look at the rings and one slice of the oldest job. All memory is reached
through the IO page table, so dirty bits are set in the step that writes. What a guest does to its rings ends as a
job's status or in STATUS and FAULTS; a step raises nothing. Between two steps the state is whole: a job in flight is
either unanswered or gone, so a state taken then loses no job and repeats none.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vfio_host.devices.compression import Compression, Decompression, begin
from vfio_host.devices.qat_state import QatSink, QatSource, encode
from vfio_host.devices.ring_device import RingDevice, completion
from vfio_host.interface.numbers import MigrationFlags
from vfio_host.interface.qat import MAX_DESTINATION, MAX_SOURCE, REQUEST, STATE_BYTES, Operation, Status

FLAGS: Final = MigrationFlags.STOP_COPY | MigrationFlags.P2P | MigrationFlags.PRE_COPY
_OPERATIONS: Final = {int(operation): operation for operation in Operation}


@dataclass(slots=True)
class _Run:
    """The oldest job, while its engine works."""

    engine: Decompression | Compression
    destination: int
    written: int = 0
    crc: int = 0


class Qat(RingDevice):
    """One accelerator."""

    def __init__(self, raise_completion: Callable[[], None]) -> None:
        super().__init__(raise_completion)
        self._run: _Run | None = None

    @property
    def flags(self) -> MigrationFlags:
        """What its migration supports (semantics 7.10)."""
        return FLAGS

    @property
    def state_bytes(self) -> int:
        """How long its state is, always."""
        return STATE_BYTES

    def save(self) -> QatSource:
        """Begin to read the state block; a job that was begun is in it as not begun."""
        return QatSource(lambda: encode(self._state))

    def load(self) -> QatSink:
        """Begin to write a state block."""
        return QatSink(self._take_over)

    def _forget(self) -> None:
        self._run = None

    def _advance(self, request: bytes) -> bytes | None:
        """Do one slice of a job; return its completion entry when that ends it."""
        if self._run is None:
            self._run = self._begin(request)
        run = self._run
        if run is None:
            return completion(request, Status.BAD_REQUEST)
        made = run.engine.advance()
        if made.output:
            self._write_output(run.destination + run.written, made.output)
            run.written += len(made.output)
            run.crc = zlib.crc32(made.output, run.crc)
        if made.status is None:
            return None
        if made.status is Status.OK:
            return completion(request, Status.OK, run.written, run.crc)
        return completion(request, made.status)

    def _begin(self, request: bytes) -> _Run | None:
        _, operation, _, source, length, _, destination, capacity, _, _, _ = REQUEST.unpack(request)
        kind = _OPERATIONS.get(operation)
        if kind is None or not 1 <= length <= MAX_SOURCE or capacity > MAX_DESTINATION:
            return None
        return _Run(begin(kind, self._dma.read(source, length), capacity), destination)
