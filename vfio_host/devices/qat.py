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
from vfio_host.devices.qat_state import QatState, decode, encode
from vfio_host.errors import DmaFault
from vfio_host.interface.numbers import U64_MAX
from vfio_host.interface.qat import (
    COMPLETION,
    CONTROL_ENABLE,
    IN_FLIGHT,
    INDEXES,
    MAX_DESTINATION,
    MAX_RING_ENTRIES,
    MAX_SOURCE,
    REQUEST,
    STATUS_ENABLED,
    STATUS_FAULTED,
    Operation,
    Register,
    Status,
)
from vfio_host.io_page_table import IoPageTable

_OPERATIONS: Final = {int(operation): operation for operation in Operation}
_DEVICE_INDEXES: Final = 8
"""Where the device's own two indexes begin in the index page."""


@dataclass(slots=True)
class _Run:
    """The oldest job, while its engine works."""

    engine: Decompression | Compression
    destination: int
    written: int = 0
    crc: int = 0


class RingNonsense(Exception):
    """An index page that no driver writes; never leaves this module."""


class Qat:
    """One accelerator. `raise_completion` is called after each completion has been written."""

    def __init__(self, raise_completion: Callable[[], None]) -> None:
        self._raise_completion: Final = raise_completion
        self._state = QatState()
        self._table: IoPageTable | None = None
        self._run: _Run | None = None
        self._answer: bytes | None = None
        self._look = False
        self._publish = False
        self._interrupt_due = False
        self._stalled_at: int | None = None

    # ---- what the host does ----

    def attach(self, table: IoPageTable | None) -> None:
        """Give the device its address space; None stops every DMA of it with a fault."""
        self._table = table
        self._stalled_at = None

    def ring(self) -> None:
        """Take notice of the doorbell."""
        self._look = True
        self._stalled_at = None

    def reset(self) -> None:
        """Empty every register, forget every job."""
        self._restart(QatState())
        self._interrupt_due = False

    @property
    def has_work(self) -> bool:
        """Tell whether a step would do anything."""
        if not self._state.enabled or not (self._look or self._publish or self._state.in_flight):
            return False
        return self._stalled_at is None or self._stalled_at != self._generation()

    def step(self) -> None:
        """Do one bounded piece of work."""
        if not self.has_work:
            return
        self._stalled_at = None
        try:
            self._work()
        except DmaFault:
            self._count_fault()
            self._stalled_at = self._generation()
        except RingNonsense:
            self._count_fault()
            self._stop(faulted=True)

    # ---- migration ----

    def save(self) -> bytes:
        """Return the state block; a job that was begun is in it as not begun."""
        return encode(self._state)

    def load(self, block: bytes) -> None:
        """Take a state over; the rings are looked at when the device next runs.

        Raises:
            StateInvalid: The device keeps what it had.
        """
        self._restart(decode(block))
        self._publish = self._interrupt_due = True

    def resume(self) -> None:
        """Begin to run after a stop: the doorbell may have rung meanwhile, at another host too."""
        self.ring()
        if self._interrupt_due:
            self._interrupt_due = False
            self._raise_completion()

    # ---- registers ----

    def write_register(self, register: Register, value: int) -> None:
        """Write a register of region 0; read-only ones, and bases while enabled, ignore it."""
        state = self._state
        if register is Register.CONTROL:
            if value & CONTROL_ENABLE and not state.enabled:
                self._enable()
            elif not value & CONTROL_ENABLE:
                self._stop(faulted=False)
        elif state.enabled:
            return
        elif register is Register.REQUEST_BASE:
            state.request_base = value
        elif register is Register.COMPLETION_BASE:
            state.completion_base = value
        elif register is Register.INDEX_BASE:
            state.index_base = value
        elif register is Register.RING_ENTRIES:
            state.ring_entries = value

    def read_register(self, register: Register) -> int:
        """Read a register of region 0."""
        state = self._state
        return {
            Register.REQUEST_BASE: state.request_base,
            Register.COMPLETION_BASE: state.completion_base,
            Register.INDEX_BASE: state.index_base,
            Register.RING_ENTRIES: state.ring_entries,
            Register.CONTROL: CONTROL_ENABLE * state.enabled,
            Register.STATUS: STATUS_ENABLED * state.enabled | STATUS_FAULTED * state.faulted,
            Register.JOBS_DONE: state.jobs_done,
            Register.BYTES_WRITTEN: state.bytes_written,
            Register.FAULTS: state.faults,
        }[register]

    def _enable(self) -> None:
        self._stop(faulted=not 1 <= self._state.ring_entries <= MAX_RING_ENTRIES)
        if not self._state.faulted:
            self._state.enabled = True
            self._look = True

    def _stop(self, *, faulted: bool) -> None:
        state = self._state
        state.enabled, state.faulted = False, faulted
        state.request_head = state.completion_tail = 0
        state.in_flight.clear()
        self._restart(state)

    def _restart(self, state: QatState) -> None:
        self._state = state
        self._run = self._answer = self._stalled_at = None
        self._look = self._publish = False

    # ---- one step ----

    def _work(self) -> None:
        state = self._state
        completion_head = self._fetch()
        if not state.in_flight:
            self._look = False
        else:
            if self._answer is None:
                self._answer = self._advance(state.in_flight[0])
            if self._answer is not None and not self._complete(self._answer, completion_head):
                return
        if self._publish:
            self._write_indexes()

    def _fetch(self) -> int:
        """Read the index page, take requests in as there is room, and return where the driver's completions stand."""
        state = self._state
        tail, _, _, completion_head = INDEXES.unpack(self._read(state.index_base, INDEXES.size))
        waiting, unread = tail - state.request_head, state.completion_tail - completion_head
        if not 0 <= waiting <= state.ring_entries or not 0 <= unread <= state.ring_entries:
            raise RingNonsense
        room = min(waiting, IN_FLIGHT - len(state.in_flight))
        while room > 0:
            place = state.request_head % state.ring_entries
            count = min(room, state.ring_entries - place)
            entries = self._read((state.request_base + place * REQUEST.size) & U64_MAX, count * REQUEST.size)
            state.in_flight += [entries[i : i + REQUEST.size] for i in range(0, len(entries), REQUEST.size)]
            state.request_head += count
            room -= count
            self._publish = True
        return int(completion_head)

    def _advance(self, request: bytes) -> bytes | None:
        """Do one slice of a job; return its completion entry when that ends it."""
        try:
            if self._run is None:
                self._run = self._begin(request)
            run = self._run
            if run is None:
                return _completion(request, Status.BAD_REQUEST, 0, 0)
            made = run.engine.advance()
            if made.output:
                self._dma().write(run.destination + run.written, made.output)
                run.written += len(made.output)
                run.crc = zlib.crc32(made.output, run.crc)
        except DmaFault:
            self._count_fault()
            return _completion(request, Status.FAULT, 0, 0)
        if made.status is None:
            return None
        if made.status is Status.OK:
            return _completion(request, Status.OK, run.written, run.crc)
        return _completion(request, made.status, 0, 0)

    def _begin(self, request: bytes) -> _Run | None:
        _, operation, _, source, length, _, destination, capacity, _, _, _ = REQUEST.unpack(request)
        kind = _OPERATIONS.get(operation)
        if kind is None or not 1 <= length <= MAX_SOURCE or capacity > MAX_DESTINATION:
            return None
        return _Run(begin(kind, self._read(source, length), capacity), destination)

    def _complete(self, answer: bytes, completion_head: int) -> bool:
        """Answer the oldest job; False when the completion ring has no place."""
        state = self._state
        if state.completion_tail - completion_head >= state.ring_entries:
            self._stalled_at = self._generation()
            return False
        place = state.completion_tail % state.ring_entries
        self._dma().write((state.completion_base + place * COMPLETION.size) & U64_MAX, answer)
        state.in_flight.pop(0)
        state.completion_tail += 1
        state.jobs_done = (state.jobs_done + 1) & U64_MAX
        state.bytes_written = (state.bytes_written + (self._run.written if self._run else 0)) & U64_MAX
        self._answer = self._run = None
        self._publish = True
        self._write_indexes()
        self._raise_completion()
        return True

    def _write_indexes(self) -> None:
        state = self._state
        own = state.request_head.to_bytes(8, "little") + state.completion_tail.to_bytes(8, "little")
        self._dma().write((state.index_base + _DEVICE_INDEXES) & U64_MAX, own)
        self._publish = False

    def _read(self, iova: int, length: int) -> bytes:
        return self._dma().read(iova, length)

    def _dma(self) -> IoPageTable:
        return self._table if self._table is not None else _NOTHING

    def _generation(self) -> int:
        return self._dma().generation

    def _count_fault(self) -> None:
        self._state.faults = (self._state.faults + 1) & U64_MAX


_NOTHING: Final = IoPageTable()
"""The page table of a device that is attached to none."""


def _completion(request: bytes, status: Status, length: int, crc: int) -> bytes:
    job, _, _, _, _, _, _, _, _, cookie, _ = REQUEST.unpack(request)
    return COMPLETION.pack(job, status, length, crc, 0, cookie)
