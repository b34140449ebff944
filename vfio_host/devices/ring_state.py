"""What a device that works off a ring of jobs (ring_device) knows of its ring, and the bytes in which that moves.

::

    registers 4 x u64 | control u32 | flags u32 | request head, completion tail u64 | jobs done, bytes written,
    faults u64 | jobs in flight u32 | zero u32 | 16 requests of 64 bytes, zeros where there is none
"""

import struct
from dataclasses import dataclass, field
from typing import Final

from vfio_host.errors import StateInvalid
from vfio_host.interface.qat import IN_FLIGHT, REQUEST
from vfio_host.interface.rings import MAX_RING_ENTRIES

_BODY: Final = struct.Struct("<QQQQIIQQQQQII")
_FAULTED: Final = 1
RING_STATE_BYTES: Final = _BODY.size + IN_FLIGHT * REQUEST.size


@dataclass(slots=True)
class RingState:
    """Registers, positions and counters of the ring.

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


def encode_ring(state: RingState) -> bytes:
    """Return the RING_STATE_BYTES of a state."""
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
    return (body + b"".join(state.in_flight)).ljust(RING_STATE_BYTES, b"\0")


def decode_ring(body: bytes) -> RingState:
    """Return the state in RING_STATE_BYTES.

    Raises:
        StateInvalid: No ring can be in that state. What decodes may still not be in canonical form.
    """
    requests, completions, indexes, entries, enabled, flags, head, tail, done, written, faults, count, _ = (
        _BODY.unpack_from(body)
    )
    if enabled > 1 or count > IN_FLIGHT:
        raise StateInvalid(f"State claims {count} jobs in flight, control {enabled}")
    first = _BODY.size
    state = RingState(
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
    if head - tail != len(state.in_flight):
        raise StateInvalid("State's ring positions do not agree with its jobs in flight")
    if state.enabled and not 1 <= entries <= MAX_RING_ENTRIES:
        raise StateInvalid(f"State has an enabled ring of {entries} entries")
    return state
