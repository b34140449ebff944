"""Machines that went on in other processes of their hosts. What did not happen is null."""

from typing import Literal

import msgspec

from orchestrator.documents.listings import Document
from orchestrator.documents.migration import FaultDocument, GuestDocument, NoticeDocument, OutcomeName


class StandstillDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parts of a standstill, in milliseconds; they add up to downtime_ms."""

    handing_over_ms: float  # from the guest's last instruction until the new process had everything
    ready_ms: float  # until that was written
    release_ms: float  # until the old process was fenced, and the machine was written to be the new one's
    resume_ms: float  # until the guest had executed there


class UpdatedMachineDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine's update."""

    attempt: str
    machine: str
    name: str
    host: str
    mode: str
    epoch: int
    outcome: OutcomeName | None  # null: only asked (`--dry-run`), or open still
    total_ms: float
    downtime_ms: float | None  # exact: both processes share the host's clock; null of a machine that was paused
    downtime: StandstillDocument | None
    ram_bytes: int
    guest: GuestDocument | None
    blockers: tuple[NoticeDocument, ...]
    warnings: tuple[NoticeDocument, ...]
    error: FaultDocument | None


class UpdateDocument(Document, frozen=True):
    """`viaduct update MACHINE`."""

    schema_name: Literal["viaduct.update.v1"]
    update: UpdatedMachineDocument


class UpdatesDocument(Document, frozen=True):
    """`viaduct update --host HOST --all`; the machines in the order in which they ended."""

    schema_name: Literal["viaduct.updates.v1"]
    host: str
    outcome: OutcomeName | None  # the worst of the machines'; null with `--dry-run`
    updates: tuple[UpdatedMachineDocument, ...]
    left: tuple[str, ...]  # names of those of which none was begun
