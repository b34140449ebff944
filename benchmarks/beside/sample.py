"""One movement of a machine, by whoever moved it: the value that the worker writes and the table is made from."""

from typing import Literal

import msgspec

Outcome = Literal["completed", "did not complete", "not offered", "failed"]


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one movement came to. What a system does not tell stays 0.

    `total_ms` is without getting the destination ready, which `ready_ms` tells: our Prepare, or the start of QEMU's
    destination with its memory preallocated. `downtime_ms` is from the guest's stop to its start at the other side,
    `own_downtime_ms` what the system itself tells. Bytes are those of the whole movement, on the wire.
    """

    who: str
    turn: int
    outcome: Outcome
    why: str = ""
    total_ms: float = 0.0
    ready_ms: float = 0.0
    downtime_ms: float = 0.0
    own_downtime_ms: float = 0.0
    bulk_ms: float = 0.0
    wire_bytes: int = 0
    cpu_seconds: float = 0.0
    rounds: int = 0
    delta_pages: int = 0
    held_back_pages: int = 0
    guest_bytes_per_s: float = 0.0
    mismatched_pages: int = 0
    agent_bytes: int = 0
    bytes_per_s: float = 0.0
    """Of iperf3 alone."""
