"""The document of whether a machine can move where, and of how a destination is chosen."""

from typing import Literal

import msgspec

from orchestrator.documents.listings import Document
from orchestrator.documents.migration import ExpectedDocument, NoticeDocument


class FiguresDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a host was ranked by: shares are between 0 and 1, and null is for what it did not say."""

    memory_budget_bytes: int | None
    memory_free_bytes: int | None
    free_share_after: float | None  # of the budget, with the machine there; null where it does not fit
    machines: int | None
    attempts_out: int | None
    attempts_in: int | None
    link_bytes_per_s: int | None
    link_share: float | None  # that one attempt more would get
    room: float | None  # the product of both shares: more is better


class ConsideredDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the choice thought of a host; its blockers are the reasons."""

    verdict: Literal["chosen", "passes", "blocked", "excluded"]
    unknown: tuple[str, ...]  # what it did not say; where there is any, it ranks after hosts that say all
    figures: FiguresDocument


class CandidateDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One destination, in the order in which they would be taken."""

    host: str
    passes: bool
    blockers: tuple[NoticeDocument, ...]
    warnings: tuple[NoticeDocument, ...]
    expected: ExpectedDocument | None
    profiles: tuple[ExpectedDocument, ...]  # the same under each profile; empty of a source agent of 0.1.0
    choice: ConsideredDocument | None


class PreflightDocument(Document, frozen=True):
    """`viaduct preflight` and `viaduct migrate --dry-run`."""

    schema_name: Literal["viaduct.preflight.v1"]
    machine: str
    name: str
    source: str
    destination: str | None  # the host that would be taken; null when none passes
    passes: bool
    candidates: tuple[CandidateDocument, ...]
