"""The network card as a step function; interface/nic.py is its data sheet, interface/wire.py its wire.

::

    time x RATE --> packets of the wire --> next descriptor? --no--> dropped, counted
                                                 | yes
                         flow table <-- learned --+--> buffer --> completion ring --> index page --> completion event

A step looks at the rings once and takes at most BATCH packets. Nothing of a step counts until its completions and its
index page are written: where a ring cannot be reached, the packets of the step are dropped, and their buffers are used
again. Between two steps every descriptor is unused or answered, so a state taken then loses and repeats none.
"""

from collections.abc import Callable
from typing import Final

from vfio_host.devices.dma_port import DmaPort, WriteLog
from vfio_host.devices.flow_table import FlowTable
from vfio_host.devices.hardware import NEVER
from vfio_host.devices.nic_state import NicSink, NicSource, NicState, state_size
from vfio_host.devices.ring_access import Ring, RingNonsense, read_indexes, register_at, write_indexes
from vfio_host.errors import DmaFault
from vfio_host.interface import wire
from vfio_host.interface.nic import COMPLETION, DESCRIPTOR, MAX_RATE, Register, Status
from vfio_host.interface.numbers import U64_MAX, MigrationFlags
from vfio_host.interface.rings import CONTROL_ENABLE, MAX_RING_ENTRIES, STATUS_ENABLED, STATUS_FAULTED
from vfio_host.io_page_table import IoPageTable

FLAGS: Final = MigrationFlags.STOP_COPY | MigrationFlags.P2P | MigrationFlags.PRE_COPY
BATCH: Final = 32
_SECOND: Final = 1_000_000_000
_MODERATION_NS: Final = 1_000_000
_BURST_NS: Final = 20_000_000


class Nic:
    """One card. `raise_completion` is called once for the packets of a step; `log` notes what is written."""

    def __init__(self, raise_completion: Callable[[], None], log: WriteLog | None = None) -> None:
        self._raise_completion: Final = raise_completion
        self._dma: Final = DmaPort(log)
        self._state = NicState()
        self._flows = FlowTable()
        self._last: int | None = None
        self._stalled_at: int | None = None
        self._interrupt_due = False

    # ---- what the host does ----

    def attach(self, table: IoPageTable | None) -> None:
        """Give the device its address space; None stops every DMA of it with a fault."""
        self._dma.attach(table)
        self._stalled_at = None

    def ring(self) -> None:
        """Take notice of the doorbell: the rings can be reached again."""
        self._stalled_at = None

    def reset(self) -> None:
        """Empty every register, forget every flow."""
        self._restart(NicState(), FlowTable())
        self._interrupt_due = False

    @property
    def due_ns(self) -> int:
        """When the next packets are in; at once where they are in already."""
        state, rate = self._state, self._rate
        if not state.enabled or rate == 0:
            return NEVER
        if self._last is None or state.balance > 0:
            return 0
        return self._last + max(_MODERATION_NS, -state.balance // rate + 1)

    def step(self, now_ns: int) -> None:
        """Take the packets that are in, at most BATCH of them."""
        state = self._state
        if not state.enabled or self._rate == 0:
            return
        self._let_in(now_ns)
        if state.balance <= 0:
            return
        try:
            self._receive()
        except RingNonsense:
            self._count_fault()
            self._stop(faulted=True)

    # ---- migration ----

    @property
    def flags(self) -> MigrationFlags:
        """What its migration supports."""
        return FLAGS

    @property
    def state_bytes(self) -> int:
        """How long its state is now; it grows with the flows."""
        return state_size(self._flows.blocks)

    def save(self) -> NicSource:
        """Begin to read the state."""
        return NicSource(self._flows, lambda: self._state)

    def load(self) -> NicSink:
        """Begin to write a state."""
        return NicSink(self._take_over)

    def resume(self) -> None:
        """Begin to run after a stop, during which the wire brought nothing."""
        self._last = self._stalled_at = None
        if self._interrupt_due:
            self._interrupt_due = False
            self._raise_completion()

    # ---- registers ----

    def write_register(self, offset: int, value: int) -> None:
        """Write a register of region 0; read-only ones, and rings and seed while enabled, ignore it.

        Raises:
            CallRefused: EINVAL where the data sheet has none.
        """
        state, register = self._state, register_at(Register, offset)
        if register is Register.CONTROL:
            if value & CONTROL_ENABLE and not state.enabled:
                self._stop(faulted=not 1 <= state.ring_entries <= MAX_RING_ENTRIES)
                state.enabled = not state.faulted
            elif not value & CONTROL_ENABLE:
                self._stop(faulted=False)
        elif register is Register.RATE:
            state.rate, state.balance, self._last = value, min(0, state.balance), None
        elif not state.enabled:
            self._write_setting(register, value)

    def read_register(self, offset: int) -> int:
        """Read a register of region 0.

        Raises:
            CallRefused: EINVAL where the data sheet has none.
        """
        state = self._state
        return {
            Register.DESCRIPTOR_BASE: state.descriptor_base,
            Register.COMPLETION_BASE: state.completion_base,
            Register.INDEX_BASE: state.index_base,
            Register.RING_ENTRIES: state.ring_entries,
            Register.CONTROL: CONTROL_ENABLE * state.enabled,
            Register.STATUS: STATUS_ENABLED * state.enabled | STATUS_FAULTED * state.faulted,
            Register.RATE: state.rate,
            Register.SEED: state.seed,
            Register.SEQUENCE: state.sequence,
            Register.PACKETS: (state.sequence - state.dropped) & U64_MAX,
            Register.BYTES_WRITTEN: state.bytes_written,
            Register.DROPPED: state.dropped,
            Register.FAULTS: state.faults,
            Register.FLOWS: len(self._flows),
        }[register_at(Register, offset)]

    def _write_setting(self, register: Register, value: int) -> None:
        state = self._state
        match register:
            case Register.DESCRIPTOR_BASE:
                state.descriptor_base = value
            case Register.COMPLETION_BASE:
                state.completion_base = value
            case Register.INDEX_BASE:
                state.index_base = value
            case Register.RING_ENTRIES:
                state.ring_entries = value
            case Register.SEED:
                state.seed = value
            case _:
                return

    @property
    def _rate(self) -> int:
        return min(self._state.rate, MAX_RATE)

    def _stop(self, *, faulted: bool) -> None:
        state = self._state
        state.enabled, state.faulted = False, faulted
        state.used = state.balance = 0
        self._restart(state, self._flows)

    def _restart(self, state: NicState, flows: FlowTable) -> None:
        self._state, self._flows = state, flows
        self._last = self._stalled_at = None

    def _take_over(self, state: NicState, flows: FlowTable) -> None:
        self._restart(state, flows)
        self._interrupt_due = True

    # ---- one step ----

    def _let_in(self, now_ns: int) -> None:
        """Count what the wire has brought by now: not for a time in which nobody looked, but for 20 ms of it."""
        state = self._state
        if self._last is not None and now_ns > self._last:
            grown = state.balance + self._rate * (now_ns - self._last)
            state.balance = min(grown, max(state.balance, self._rate * _BURST_NS, _SECOND))
        elif self._last is None and state.balance == 0:
            state.balance = 1  # the first packet comes with the clock
        self._last = now_ns

    def _receive(self) -> None:
        state = self._state
        descriptors = self._look()
        entries, written, missed = bytearray(), 0, 0
        learned: list[tuple[int, int, int]] = []
        for _ in range(BATCH):
            if state.balance <= 0:
                break
            sequence = (state.sequence + len(learned) + missed) & U64_MAX
            length = wire.length_of(state.seed, sequence)
            state.balance -= length * _SECOND
            if not descriptors:
                missed += 1
                continue
            address, room, cookie = DESCRIPTOR.unpack(descriptors.pop())
            packet = wire.packet(state.seed, sequence)
            status = self._deliver(address, room, packet)
            written += length * (status is Status.OK)
            learned.append((wire.flow_of(state.seed, sequence), sequence, length))
            check = wire.CHECK.unpack(packet[-wire.CHECK.size :])[0]
            entries += COMPLETION.pack(sequence, state.dropped, cookie, length, check, status)
        if not learned or not self._answer(bytes(entries)):
            missed += len(learned)
            learned, written = [], 0
        state.sequence = (state.sequence + len(learned) + missed) & U64_MAX
        state.dropped = (state.dropped + missed) & U64_MAX
        state.bytes_written = (state.bytes_written + written) & U64_MAX
        for flow, sequence, length in learned:
            self._flows.count(flow, sequence, length)
        if learned:
            self._raise_completion()

    def _look(self) -> list[bytes]:
        """Return the descriptors that this step may use, the next one last; none where the rings cannot be reached."""
        if self._stalled_at is not None and self._stalled_at == self._dma.generation:
            return []
        state = self._state
        self._stalled_at = None
        try:
            posted, unread = read_indexes(
                self._dma, state.index_base, state.ring_entries, taken=state.used, answered=state.used
            )
            count = min(posted, state.ring_entries - unread, BATCH)
            runs = Ring(state.descriptor_base, state.ring_entries, DESCRIPTOR.size).read(self._dma, state.used, count)
            return [descriptor for run in runs for descriptor in run][::-1]
        except DmaFault:
            self._stall()
            return []

    def _deliver(self, address: int, room: int, packet: bytes) -> Status:
        if room < len(packet):
            return Status.TOO_SMALL
        try:
            self._dma.write(address, packet)
        except DmaFault:
            self._count_fault()
            return Status.FAULT
        return Status.OK

    def _answer(self, entries: bytes) -> bool:
        """Write completions and the index page; False when they cannot be reached, and nothing has counted."""
        state = self._state
        used = state.used + len(entries) // COMPLETION.size
        try:
            Ring(state.completion_base, state.ring_entries, COMPLETION.size).write(self._dma, state.used, entries)
            write_indexes(self._dma, state.index_base, taken=used, answered=used)
        except DmaFault:
            self._stall()
            return False
        state.used = used
        return True

    def _stall(self) -> None:
        self._count_fault()
        self._stalled_at = self._dma.generation

    def _count_fault(self) -> None:
        self._state.faults = (self._state.faults + 1) & U64_MAX
