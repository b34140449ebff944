"""The network card's state: a stream of records, of which those of the flow table can be sent while it runs.

::

    record     kind 4s | number u32 | payload bytes u32 | CRC-32 of the fields before it and the payload | payload
    "NIC1"     the device: largest number of flows        first, once
    "FLOW"     block `number` of the flow table           as often as it changed after it was sent
    "REGS"     registers, positions, counters             in STOP_COPY, once
    "END."     how many flows, CRC-32 of all their blocks  last: the loading side checks what came together

Pre-copy: initial_bytes are the device and the blocks that there were at the beginning, until each was sent once;
dirty_bytes are the blocks that came or changed since. What is left for STOP_COPY is what changed last.
"""

import errno
import struct
import zlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Final

from vfio_host.devices.flow_table import BLOCK_BYTES, MAX_BLOCKS, FlowTable
from vfio_host.errors import CallRefused, StateInvalid
from vfio_host.interface.calls import PrecopyInfo
from vfio_host.interface.nic import MAX_FLOWS
from vfio_host.interface.rings import MAX_RING_ENTRIES

_RECORD: Final = struct.Struct("<4sII")
_CHECKSUM: Final = struct.Struct("<I")
_FRAME: Final = _RECORD.size + _CHECKSUM.size
_DEVICE, _FLOWS, _REGISTERS, _END = b"NIC1", b"FLOW", b"REGS", b"END."
_LIMITS: Final = struct.Struct("<II")
_TOTALS: Final = struct.Struct("<II")
_BODY: Final = struct.Struct("<QQQQQQQQQQQqBB6x")
_BALANCE: Final = 1 << 61
"""More than the wire ever owes or is owed."""
RECORD_BYTES: Final = _FRAME + BLOCK_BYTES
"""One block on its way."""
_SIZES: Final = {_DEVICE: _LIMITS.size, _FLOWS: BLOCK_BYTES, _REGISTERS: _BODY.size, _END: _TOTALS.size}
REST_BYTES: Final = _FRAME * 2 + _BODY.size + _TOTALS.size
"""Registers and totals, which always come last."""


@dataclass(slots=True)
class NicState:
    """Everything of the card that must move with the machine, but for its flow table.

    `used` counts buffers used, and completions written. `balance` is what the wire may bring before any time passes,
    in bytes x nanoseconds.
    """

    descriptor_base: int = 0
    completion_base: int = 0
    index_base: int = 0
    ring_entries: int = 0
    rate: int = 0
    seed: int = 0
    used: int = 0
    sequence: int = 0
    bytes_written: int = 0
    dropped: int = 0
    faults: int = 0
    balance: int = 0
    enabled: bool = False
    faulted: bool = False


def encode_registers(state: NicState) -> bytes:
    """Return the payload of "REGS"."""
    return _BODY.pack(*astuple(state))


def decode_registers(payload: bytes) -> NicState:
    """Return the state in a payload.

    Raises:
        StateInvalid: No card can be in that state, or it is not in canonical form.
    """
    state = NicState(*_BODY.unpack(payload))
    state.enabled, state.faulted = bool(state.enabled), bool(state.faulted)
    if state.enabled and not 1 <= state.ring_entries <= MAX_RING_ENTRIES:
        raise StateInvalid(f"State has an enabled ring of {state.ring_entries} entries")
    if abs(state.balance) > _BALANCE:
        raise StateInvalid("State has a balance of the wire that cannot be")
    if encode_registers(state) != payload:
        raise StateInvalid("Registers are not in canonical form")
    return state


def record(kind: bytes, number: int, payload: bytes) -> bytes:
    """Return a record."""
    head = _RECORD.pack(kind, number, len(payload))
    return head + _CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(head))) + payload


def device_record() -> bytes:
    """Return the record that every card of this model and version begins with."""
    return record(_DEVICE, 0, _LIMITS.pack(MAX_FLOWS, BLOCK_BYTES))


def state_size(blocks: int) -> int:
    """Return how long a state is that is read all at once."""
    return _FRAME + _LIMITS.size + blocks * RECORD_BYTES + REST_BYTES


class NicSource:
    """The state being read."""

    def __init__(self, flows: FlowTable, registers: Callable[[], NicState]) -> None:
        self._flows: Final = flows
        self._registers: Final = registers
        self._ready: bytes = device_record()
        self._ready_is_initial = True
        self._initial = list(range(flows.blocks - 1, -1, -1))
        self._stopped, self._ended = False, False
        flows.changed.clear()

    def precopy_info(self) -> PrecopyInfo:
        """Return what is left to be read while the card runs."""
        fresh = len(self._flows.changed.difference(self._initial)) * RECORD_BYTES
        ready, initial = len(self._ready), len(self._initial) * RECORD_BYTES
        if self._ready_is_initial:
            return PrecopyInfo(initial_bytes=ready + initial, dirty_bytes=fresh)
        return PrecopyInfo(initial_bytes=initial, dirty_bytes=ready + fresh)

    def stop(self) -> None:
        """Let everything be read."""
        self._stopped = True

    def read(self, size: int) -> bytes:
        """Return what comes next, in whole records and the part of one that fits."""
        parts: list[bytes] = []
        while size > 0 and (self._ready or self._next()):
            part, self._ready = self._ready[:size], self._ready[size:]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _next(self) -> bool:
        """Make the next record ready; False when there is none for now."""
        changed = self._flows.changed
        self._ready_is_initial = bool(self._initial)
        if self._initial or changed:
            number = self._initial.pop() if self._initial else min(changed)
            changed.discard(number)
            self._ready = record(_FLOWS, number, self._flows.block(number))
        elif self._stopped and not self._ended:
            self._ended = True
            self._ready = record(_REGISTERS, 0, encode_registers(self._registers()))
            self._ready += record(_END, 0, _TOTALS.pack(len(self._flows), self._flows.checksum()))
        return bool(self._ready)


class NicSink:
    """The state being written; `take` takes over registers and table."""

    def __init__(self, take: Callable[[NicState, FlowTable], None]) -> None:
        self._take: Final = take
        self._unread = bytearray()
        self._blocks: dict[int, bytes] = {}
        self._begun = False
        self._registers: NicState | None = None
        self._totals: tuple[int, int] | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; never more than a record of them waits.

        Raises:
            StateInvalid: A record is damaged or out of place; it and all after it do not count.
            CallRefused: ENOMEM for what comes after the end; none of it is taken.
        """
        if self._totals is not None and data:
            raise CallRefused(errno.ENOMEM, "State goes on after its end")
        self._unread += data
        try:
            while self._next_record():
                pass
        except StateInvalid:
            self._unread.clear()
            raise

    def finish(self) -> None:
        """Take the state over.

        Raises:
            StateInvalid: It is short, or its parts do not go together.
        """
        if self._registers is None or self._totals is None or self._unread:
            raise StateInvalid("State ends short")
        self._take(self._registers, FlowTable.of(self._blocks, *self._totals))

    def _next_record(self) -> bool:
        """Take one record out of what came; False when none is whole."""
        if len(self._unread) < _FRAME:
            return False
        kind, number, length = _RECORD.unpack_from(self._unread)
        if _SIZES.get(kind) != length:
            raise StateInvalid("State is of another device model, or damaged")
        end = _FRAME + length
        if end > len(self._unread):
            return False
        taken = bytes(self._unread[:end])
        if record(kind, number, taken[_FRAME:]) != taken:
            raise StateInvalid("State is damaged: a record's checksum is wrong")
        self._record(kind, number, taken[_FRAME:])
        del self._unread[:end]
        return True

    def _record(self, kind: bytes, number: int, payload: bytes) -> None:
        if self._begun is (kind == _DEVICE) or self._totals is not None:
            raise StateInvalid("State has a record out of its place")
        if kind == _DEVICE:
            if record(kind, number, payload) != device_record():
                raise StateInvalid("State is of another version of this device")
            self._begun = True
        elif kind == _FLOWS:
            if number >= MAX_BLOCKS or self._registers is not None:
                raise StateInvalid(f"State has a block {number} of flows, or one after its registers")
            self._blocks[number] = payload
        elif kind == _REGISTERS:
            if self._registers is not None:
                raise StateInvalid("State has its registers twice")
            self._registers = decode_registers(payload)
        else:
            flows, checksum = _TOTALS.unpack(payload)
            self._totals = flows, checksum
