"""The document of the whole site, one line each time that it is looked at."""

from typing import Literal

import msgspec

from orchestrator.documents.listings import Document, EvacuationLineDocument
from orchestrator.documents.migration import NoticeDocument, OutcomeName


class SiteHostDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A configured host; what is null is not known. `obstacles` say why it is silent, or cannot be a destination."""

    host: str
    obstacles: tuple[NoticeDocument, ...]
    maintenance: bool  # nobody chooses it
    version: str | None
    machines: int | None
    memory_free_bytes: int | None
    memory_budget_bytes: int | None
    attempts_out: int | None
    attempts_in: int | None


class SiteAttemptDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An attempt as it stands; rates are of its last round, null before the first. Times are RFC 3339, UTC."""

    attempt: str
    machine: str
    name: str
    source: str
    destination: str
    phase: str
    outcome: OutcomeName | None
    percent: int
    remaining_bytes: int | None
    wire_bytes_per_s: float | None
    dirty_bytes_per_s: float | None
    expected_downtime_ms: float | None
    downtime_limit_ms: int
    reason: str
    created: str
    updated: str


class SiteDocument(Document, frozen=True):
    """`viaduct watch` without an attempt: one line each time. `ended` were open in the line before.

    Evacuations that have an outcome were, too.
    """

    schema_name: Literal["viaduct.site.v1"]
    at: str
    hosts: tuple[SiteHostDocument, ...]
    in_flight: tuple[SiteAttemptDocument, ...]
    waiting: tuple[SiteAttemptDocument, ...]
    ended: tuple[SiteAttemptDocument, ...]
    evacuations: tuple[EvacuationLineDocument, ...]
    unheard: str | None  # why nothing newer is known of attempts
