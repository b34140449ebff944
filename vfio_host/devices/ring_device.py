"""A device that works off a ring of jobs, oldest first: what the accelerators of all models have in common.

::

    doorbell -> read the index page -> fetch requests (at most IN_FLIGHT) -> a slice of the oldest job, step by step
             -> completion entry -> index page -> completion event

Rings, index page, entries and the registers up to FAULTS are those of interface/qat.py. A model says what a slice of
a job does (`_advance`) and what is forgotten when jobs are dropped (`_forget`). A DMA fault on a ring makes the device
wait until the doorbell rings or its mappings change; an index page that no driver writes disables it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from vfio_host.devices.dma_port import DmaPort
from vfio_host.devices.hardware import NEVER
from vfio_host.devices.ring_access import Ring, RingNonsense, read_indexes, register_at, write_indexes
from vfio_host.devices.ring_state import RingState
from vfio_host.errors import DmaFault
from vfio_host.interface.numbers import U64_MAX
from vfio_host.interface.qat import COMPLETION, IN_FLIGHT, REQUEST, Register, Status
from vfio_host.interface.rings import CONTROL_ENABLE, MAX_RING_ENTRIES, STATUS_ENABLED, STATUS_FAULTED
from vfio_host.io_page_table import IoPageTable


class RingDevice(ABC):
    """One device. `raise_completion` is called after each completion has been written."""

    def __init__(self, raise_completion: Callable[[], None]) -> None:
        self._raise_completion: Final = raise_completion
        self._dma: Final = DmaPort()
        self._state = RingState()
        self._answer: bytes | None = None
        self._job_written = 0
        self._look = False
        self._publish = False
        self._interrupt_due = False
        self._stalled_at: int | None = None

    # ---- what a model adds ----

    @abstractmethod
    def _advance(self, request: bytes) -> bytes | None:
        """Do one slice of a job; return its completion entry when that ends it. A DmaFault is counted and answered."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop what is known of the oldest job."""

    # ---- what the host does ----

    def attach(self, table: IoPageTable | None) -> None:
        """Give the device its address space; None stops every DMA of it with a fault."""
        self._dma.attach(table)
        self._stalled_at = None

    def ring(self) -> None:
        """Take notice of the doorbell."""
        self._look = True
        self._stalled_at = None

    def reset(self) -> None:
        """Empty every register, forget every job."""
        self._restart(RingState())
        self._interrupt_due = False

    @property
    def has_work(self) -> bool:
        """Tell whether a step would do anything."""
        if not self._state.enabled or not (self._look or self._publish or self._state.in_flight):
            return False
        return self._stalled_at is None or self._stalled_at != self._dma.generation

    @property
    def due_ns(self) -> int:
        """At once, or never: the device works whenever there is work, whatever the time."""
        return 0 if self.has_work else NEVER

    def step(self, now_ns: int) -> None:
        """Do one bounded piece of work; the time does not matter."""
        if not self.has_work:
            return
        self._stalled_at = None
        try:
            self._work()
        except DmaFault:
            self._count_fault()
            self._stalled_at = self._dma.generation
        except RingNonsense:
            self._count_fault()
            self._stop(faulted=True)

    def resume(self) -> None:
        """Begin to run after a stop: the doorbell may have rung meanwhile, at another host too."""
        self.ring()
        if self._interrupt_due:
            self._interrupt_due = False
            self._raise_completion()

    # ---- registers ----

    def write_register(self, offset: int, value: int) -> None:
        """Write a register of region 0; read-only ones, and bases while enabled, ignore it.

        Raises:
            CallRefused: EINVAL where the data sheet has none.
        """
        state, register = self._state, register_at(Register, offset)
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

    def read_register(self, offset: int) -> int:
        """Read a register of region 0.

        Raises:
            CallRefused: EINVAL where the data sheet has none.
        """
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
        }[register_at(Register, offset)]

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

    def _restart(self, state: RingState) -> None:
        self._state = state
        self._answer = self._stalled_at = None
        self._job_written = 0
        self._look = self._publish = False
        self._forget()

    def _take_over(self, state: RingState) -> None:
        """Go on from a state that was loaded; the rings are looked at when the device next runs."""
        self._restart(state)
        self._publish = self._interrupt_due = True

    # ---- one step ----

    def _work(self) -> None:
        state = self._state
        unread = self._fetch()
        if not state.in_flight:
            self._look = False
        else:
            if self._answer is None:
                self._answer = self._slice(state.in_flight[0])
            if self._answer is not None and not self._complete(self._answer, unread):
                return
        if self._publish:
            self._write_indexes()

    def _fetch(self) -> int:
        """Read the index page, take requests in as there is room, and return how many completions wait to be read."""
        state = self._state
        waiting, unread = read_indexes(
            self._dma, state.index_base, state.ring_entries, taken=state.request_head, answered=state.completion_tail
        )
        room = min(waiting, IN_FLIGHT - len(state.in_flight))
        for requests in Ring(state.request_base, state.ring_entries, REQUEST.size).read(
            self._dma, state.request_head, room
        ):
            state.in_flight += requests
            state.request_head += len(requests)
            self._publish = True
        return unread

    def _slice(self, request: bytes) -> bytes | None:
        try:
            return self._advance(request)
        except DmaFault:
            self._count_fault()
            return completion(request, Status.FAULT)

    def _write_output(self, iova: int, data: bytes | memoryview) -> None:
        """Write output of the oldest job; a DmaFault ends the job."""
        self._dma.write(iova, data)
        self._job_written += len(data)

    def _complete(self, answer: bytes, unread: int) -> bool:
        """Answer the oldest job; False when the completion ring has no place."""
        state = self._state
        if unread >= state.ring_entries:
            self._stalled_at = self._dma.generation
            return False
        Ring(state.completion_base, state.ring_entries, COMPLETION.size).write(self._dma, state.completion_tail, answer)
        state.in_flight.pop(0)
        state.completion_tail += 1
        state.jobs_done = (state.jobs_done + 1) & U64_MAX
        state.bytes_written = (state.bytes_written + self._job_written) & U64_MAX
        self._answer, self._job_written = None, 0
        self._forget()
        self._publish = True
        self._write_indexes()
        self._raise_completion()
        return True

    def _write_indexes(self) -> None:
        state = self._state
        write_indexes(self._dma, state.index_base, taken=state.request_head, answered=state.completion_tail)
        self._publish = False

    def _count_fault(self) -> None:
        self._state.faults = (self._state.faults + 1) & U64_MAX


def completion(request: bytes, status: Status, length: int = 0, crc: int = 0) -> bytes:
    """Return the completion entry of a request."""
    job, _, _, _, _, _, _, _, _, cookie, _ = REQUEST.unpack(request)
    return COMPLETION.pack(job, status, length, crc, 0, cookie)
