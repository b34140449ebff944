"""The documents of hosts, machines, attempts, certificates, versions and errors."""

from typing import Literal

import msgspec

from orchestrator.documents.migration import (
    FaultDocument,
    GuestDocument,
    MemoryDocument,
    MigrationDocument,
    NoticeDocument,
    OutcomeName,
)


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"schema_name": "schema"}):
    """Every document below begins with the name of its schema."""


class MachineDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine as its host tells it."""

    machine: str
    name: str
    host: str
    state: str
    epoch: int
    run_state: str
    ram_bytes: int
    attempt: str | None
    guest: GuestDocument | None
    memory: MemoryDocument | None
    warnings: tuple[NoticeDocument, ...]


class SilentHostDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A host that did not answer: nothing is concluded about what lives there."""

    host: str
    error: FaultDocument


class MachinesDocument(Document, frozen=True):
    """`viaduct machine list`."""

    schema_name: Literal["viaduct.machines.v1"]
    machines: tuple[MachineDocument, ...]
    silent: tuple[SilentHostDocument, ...]


class OneMachineDocument(Document, frozen=True):
    """`viaduct machine create|show|pause|resume|destroy`."""

    schema_name: Literal["viaduct.machine.v1"]
    machine: MachineDocument


class DirtyRateDocument(Document, frozen=True):
    """`viaduct machine dirty-rate`: distinct pages of 4 KiB written in the window; `pages` are those of either."""

    schema_name: Literal["viaduct.dirty_rate.v1"]
    machine: str
    host: str
    window_ms: float
    cpu_pages: int
    dma_pages: int
    pages: int
    dirty_bytes_per_s: float
    exact: bool
    failure: str | None
    sampled: bool  # pages are extrapolated from some; whether CPU or DMA wrote them is not known, and both are 0


class OfferDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What machines may have on a host."""

    device_models: tuple[str, ...]
    backends: tuple[str, ...]
    viommu_modes: tuple[str, ...]
    viommu_address_bits: tuple[int, ...]
    host_dirty_tracking: bool
    state_format: int
    bulk_host: str  # where memory is sent to
    link_bytes_per_s: int | None  # as configured; null where nobody said


class LoadDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a host has to do; `attempts` are open at this agent: out at a source's, in at a destination's."""

    machines: int
    memory_reserved_bytes: int  # for arrivals that are being brought up
    memory_free_bytes: int
    attempts: int


class SideDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One agent of a host; the facts are null where it does not answer, or does not tell, as one of 0.1.0."""

    address: str
    answers: bool
    version: str | None
    boot_id: str | None
    memory_budget_bytes: int | None
    memory_in_use_bytes: int | None
    features: tuple[str, ...]
    offer: OfferDocument | None
    load: LoadDocument | None
    error: FaultDocument | None


class HostDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A configured host and its two agents."""

    host: str
    source: SideDocument
    dest: SideDocument
    conflicts: tuple[NoticeDocument, ...]  # why its agents are not taken for those of this host
    maintenance: bool | None  # nobody chooses it; null where nobody told


class HostsDocument(Document, frozen=True):
    """`viaduct host list`."""

    schema_name: Literal["viaduct.hosts.v1"]
    hosts: tuple[HostDocument, ...]


class OneHostDocument(Document, frozen=True):
    """`viaduct host show`."""

    schema_name: Literal["viaduct.host.v1"]
    host: HostDocument
    machines: tuple[MachineDocument, ...]


class AttemptDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An attempt in a list. Times are RFC 3339, UTC."""

    attempt: str
    machine: str
    name: str
    source: str
    destination: str
    epoch: int
    term: int
    phase: str
    outcome: OutcomeName | None
    percent: int
    reason: str
    priority: int
    driver: str
    created: str
    updated: str
    retries_left: int
    update: str | None  # the mode of an update; null: a migration


class EvacuationLineDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An evacuation or a restore in a list; `viaduct show` tells of its machines."""

    evacuation: str
    kind: Literal["evacuate", "restore"]
    host: str
    machines: int
    moved: int
    percent: int
    outcome: OutcomeName | None  # null: it goes on
    driver: str
    created: str


class AttemptsDocument(Document, frozen=True):
    """`viaduct list`. What a silent host knows of attempts is not told."""

    schema_name: Literal["viaduct.attempts.v1"]
    attempts: tuple[AttemptDocument, ...]
    silent: tuple[SilentHostDocument, ...]
    evacuations: tuple[EvacuationLineDocument, ...]


class EventDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One transition."""

    sequence: int
    phase: str
    outcome: OutcomeName | None
    reason: str
    at: str


class OneAttemptDocument(Document, frozen=True):
    """`viaduct show` and `viaduct cancel`; events only with `--events`."""

    schema_name: Literal["viaduct.attempt.v1"]
    attempt: AttemptDocument
    result: MigrationDocument
    events: tuple[EventDocument, ...] | None


class ReportDocument(Document, frozen=True):
    """`viaduct report`: where the page was written, and its size."""

    schema_name: Literal["viaduct.report.v1"]
    attempt: str
    file: str
    bytes: int


class PkiDocument(Document, frozen=True):
    """`viaduct pki init|issue|show`."""

    schema_name: Literal["viaduct.pki.v1"]
    certificate: str  # the file
    key: str | None  # the file; null where it was only looked at
    identity: str | None  # viaduct://site/role/name; null for the authority itself
    authority: bool
    names: tuple[str, ...]
    not_before: str
    not_after: str
    sha256: str


class VersionDocument(Document, frozen=True):
    """`viaduct version`."""

    schema_name: Literal["viaduct.version.v1"]
    version: str
    python: str


class ErrorDocument(Document, frozen=True):
    """What a command prints that could not do what it was asked; stderr says the same in two lines."""

    schema_name: Literal["viaduct.error.v1"]
    code: str
    message: str
    hint: str
    exit_code: int
