"""The documents of `viaduct doctor` and `viaduct recover`."""

from typing import Literal

import msgspec

from orchestrator.documents.listings import Document


class ExaminedHostDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A configured host: `answers`, or the code of the error, for each of its agents."""

    host: str
    source: str
    dest: str
    version: str | None


class CopyDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine's journal at one host, and its process; the state is null where the journal cannot be read."""

    host: str
    state: str | None
    epoch: int
    owned_epoch: int
    attempt: str | None
    pause: int
    process: Literal["alive", "gone", "unknown"]
    run_state: str  # running | paused | incoming; empty where the process was not heard
    complaint: str


class PlacedMachineDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine, its owner where one is known, and all of its copies."""

    machine: str
    name: str
    owner: str | None
    epoch: int
    state: Literal["running", "paused", "silent", "moving", "lost", "unresolved", "contradiction"]
    copies: tuple[CopyDocument, ...]


class FindingDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that is wrong, or worth knowing; docs/recovery.md explains each code."""

    code: str
    severity: Literal["problem", "notice"]
    host: str | None
    machine: str | None
    attempt: str | None
    message: str
    hint: str


class DoctorDocument(Document, frozen=True):
    """`viaduct doctor`."""

    schema_name: Literal["viaduct.doctor.v1"]
    site: str
    hosts: tuple[ExaminedHostDocument, ...]
    machines: tuple[PlacedMachineDocument, ...]
    findings: tuple[FindingDocument, ...]


class StepDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that a recovery did; `error` says why it failed."""

    machine: str
    name: str
    host: str
    action: str
    message: str
    done: bool
    error: str | None


class UnresolvedDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine of which something is still open."""

    machine: str
    name: str
    reason: str
    hint: str


class RecoverDocument(Document, frozen=True):
    """`viaduct recover`; `fenced` is the host that the operator vouched for, of the `unheard` nothing is known."""

    schema_name: Literal["viaduct.recover.v1"]
    fenced: str | None
    steps: tuple[StepDocument, ...]
    unresolved: tuple[UnresolvedDocument, ...]
    unheard: tuple[str, ...] = ()
