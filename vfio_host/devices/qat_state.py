"""The accelerator's state, and the block of STATE_BYTES in which it moves.

::

    setup part, 64 bytes   magic 8s | version u32 | in-flight limit u32 | zeros | CRC-32 of what stands before it
    body                   registers 4 x u64 | control u32 | flags u32 | request head, completion tail u64
                           jobs done, bytes written, faults u64 | jobs in flight u32 | zero u32 |
                           16 requests of 64 bytes |
                           zeros up to the last 4 bytes, which are the CRC-32 of the body before them

The setup part says what the device is and never changes, so it can be sent while the device runs (PRE_COPY). The
encoding is canonical: what decodes, encodes to the same bytes.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

from vfio_host.errors import StateInvalid
from vfio_host.interface.qat import IN_FLIGHT, MAX_RING_ENTRIES, REQUEST, STATE_BYTES

SETUP_BYTES: Final = 64
_MAGIC: Final = b"VIADQAT\0"
_VERSION: Final = 1
_SETUP: Final = struct.Struct("<8sII44x")
_BODY: Final = struct.Struct("<QQQQIIQQQQQII")
_CHECKSUM: Final = struct.Struct("<I")
_FAULTED: Final = 1


@dataclass(slots=True)
class QatState:
    """Everything of the device that must move with the machine.

    `request_head` counts requests fetched, `completion_tail` completions written. `in_flight` holds the requests
    between the two, as they were fetched, oldest first.
    """

    request_base: int = 0
    completion_base: int = 0
    index_base: int = 0
    ring_entries: int = 0
    enabled: bool = False
    faulted: bool = False
    request_head: int = 0
    completion_tail: int = 0
    jobs_done: int = 0
    bytes_written: int = 0
    faults: int = 0
    in_flight: list[bytes] = field(default_factory=list)


def setup_part() -> bytes:
    """Return the part that every device of this model and version has in common."""
    body = _SETUP.pack(_MAGIC, _VERSION, IN_FLIGHT)
    return body + _CHECKSUM.pack(zlib.crc32(body))


def encode(state: QatState) -> bytes:
    """Return the state block."""
    body = _BODY.pack(
        state.request_base,
        state.completion_base,
        state.index_base,
        state.ring_entries,
        int(state.enabled),
        _FAULTED * state.faulted,
        state.request_head,
        state.completion_tail,
        state.jobs_done,
        state.bytes_written,
        state.faults,
        len(state.in_flight),
        0,
    )
    body += b"".join(state.in_flight)
    body = body.ljust(STATE_BYTES - SETUP_BYTES - _CHECKSUM.size, b"\0")
    return setup_part() + body + _CHECKSUM.pack(zlib.crc32(body))


def check_setup(data: bytes) -> None:
    """Check as much of the setup part as has come.

    Raises:
        StateInvalid: It is of another model, version or size of device.
    """
    ours = setup_part()
    if data[:SETUP_BYTES] != ours[: len(data)]:
        raise StateInvalid("State is of another device model or version")


def decode(block: bytes) -> QatState:
    """Return the state in a block.

    Raises:
        StateInvalid: It is short, long, damaged, of another device, or not in canonical form.
    """
    if len(block) != STATE_BYTES:
        raise StateInvalid(f"State has {len(block)} bytes, not {STATE_BYTES}")
    check_setup(block)
    body = block[SETUP_BYTES : -_CHECKSUM.size]
    if _CHECKSUM.unpack(block[-_CHECKSUM.size :]) != (zlib.crc32(body),):
        raise StateInvalid("State is damaged: its checksum is wrong")
    requests, completions, indexes, entries, enabled, flags, head, tail, done, written, faults, count, _ = (
        _BODY.unpack_from(body)
    )
    if enabled > 1 or count > IN_FLIGHT:
        raise StateInvalid(f"State claims {count} jobs in flight, control {enabled}")
    first = _BODY.size
    state = QatState(
        request_base=requests,
        completion_base=completions,
        index_base=indexes,
        ring_entries=entries,
        enabled=bool(enabled),
        faulted=bool(flags & _FAULTED),
        request_head=head,
        completion_tail=tail,
        jobs_done=done,
        bytes_written=written,
        faults=faults,
        in_flight=[body[first + i * REQUEST.size : first + (i + 1) * REQUEST.size] for i in range(count)],
    )
    _check_sense(state)
    if encode(state) != block:
        raise StateInvalid("State is not in canonical form")
    return state


def _check_sense(state: QatState) -> None:
    if state.request_head - state.completion_tail != len(state.in_flight):
        raise StateInvalid("State's ring positions do not agree with its jobs in flight")
    if state.enabled and not 1 <= state.ring_entries <= MAX_RING_ENTRIES:
        raise StateInvalid(f"State has an enabled ring of {state.ring_entries} entries")
