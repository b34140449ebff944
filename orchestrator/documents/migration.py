"""`viaduct.migration.v1`: the result of a migration, with the contract's keys, and those of what is tried again.

What did not happen is null: a refused migration has no downtime.
"""

from typing import Literal

import msgspec

OutcomeName = Literal["completed", "failed", "cancelled", "refused", "unresolved", "lost"]
VerifiedBy = Literal["witness", "full", "none"]
Clock = Literal["shared", "source"]


class NoticeDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A blocker or a warning; device is empty when the whole machine is meant."""

    code: str
    message: str
    device: str


class FaultDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What went wrong, why, and what to do."""

    code: str
    message: str
    hint: str


class DowntimeDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The six disjoint parts that add up to downtime_ms, and the share of resume_ms that is not exact."""

    pause_ms: float
    last_round_ms: float
    device_state_ms: float
    verify_ms: float
    handoff_ms: float
    resume_ms: float
    uncertainty_ms: float


class RoundDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One round of copying; what an agent of 0.1.0 does not tell is 0."""

    round: int
    dirty_pages: int
    sent_pages: int
    zero_pages: int
    wire_bytes: int
    ms: float
    dirty_bytes_per_s: float
    wire_bytes_per_s: float
    cpu_dirtied_pages: int  # of the harvest that followed, by the vCPUs' log
    dma_dirtied_pages: int  # by the devices' trackers; a page may be in both
    compressed_pages: int  # of the sent ones, how they travelled; the rest went as they are
    delta_pages: int
    reference_pages: int
    held_back_pages: int  # dirty again before their turn, and left for a later one
    throttle_percent: int  # of the vCPUs' time that was taken from them meanwhile
    device_throttle_percent: int  # the same of the devices, whose DMA was held
    ended_ms: float  # since the first round began, as time in rounds


class MemoryDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the machine's RAM held when it was created."""

    kind: Literal["image", "mixture"]
    files: tuple[str, ...]
    sha256: str


class GuestDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the guest says of itself; rates are achieved ones."""

    errors: int
    jobs_done: int
    dirty_bytes_per_s: float
    dma_bytes_per_s: float


class ExpectedDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was expected before the start."""

    total_ms: float
    prepare_ms: float
    downtime_ms: float
    clock: Clock
    rounds: int
    total_low_ms: float | None  # bounds, and all below: null of a source agent of 0.1.0
    total_high_ms: float | None
    downtime_low_ms: float | None
    downtime_high_ms: float | None
    converges: bool | None  # within the downtime limit and the timeout
    profile: str | None
    link_bytes_per_s: float | None  # on which it rests; assumed where `rate-assumed` warns
    dirty_bytes_per_s: float | None  # the same


class LimitsDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the attempt is held to: as tuned last, else as asked for; a source of 0.1.0 does not tell of a tuning."""

    downtime_limit_ms: int
    max_bandwidth_bytes_per_s: int | None  # null: unlimited
    tuned: bool


class MigrationDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"schema_name": "schema"}):
    """The result of one attempt."""

    schema_name: Literal["viaduct.migration.v1"]
    attempt: str
    machine: str
    source: str
    destination: str
    epoch: int
    outcome: OutcomeName | None  # null: open still (`show`, `migrate --detach`)
    transport: str
    verified_by: VerifiedBy
    total_ms: float
    prepare_ms: float | None
    downtime_ms: float | None
    clock: Clock | None
    downtime: DowntimeDocument | None
    rounds: tuple[RoundDocument, ...]
    memory: MemoryDocument | None
    ram_bytes: int
    wire_bytes: int
    pages_verified: int
    pages_mismatched: int
    guest: GuestDocument | None
    expected: ExpectedDocument | None
    blockers: tuple[NoticeDocument, ...]
    warnings: tuple[NoticeDocument, ...]
    error: FaultDocument | None
    earlier: tuple[str, ...]  # the failed attempts that this one repeats, oldest first
    retried_as: str | None  # the attempt that repeats this one
    rounds_closed: int  # of many, `rounds` holds the first, every k-th and the last: at most 256
    limits: LimitsDocument
    delta_hit_rate: float | None  # of pages sent again, the share whose last contents were remembered; null: none asked
