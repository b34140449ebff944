"""The documents of evacuations and of hosts in maintenance. Times are RFC 3339, UTC."""

from typing import Literal

import msgspec

from orchestrator.documents.listings import Document
from orchestrator.documents.migration import FaultDocument, OutcomeName

KindName = Literal["evacuate", "restore"]


class MovedMachineDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine; what there is of its last attempt only is null before its first."""

    machine: str
    name: str
    ram_bytes: int
    source: str | None
    destination: str | None
    attempt: str | None  # the last one
    attempts: tuple[str, ...]  # oldest first
    phase: str | None
    outcome: OutcomeName | None  # null: it waits or moves still
    percent: int
    downtime_ms: float | None
    wire_bytes: int
    reason: str
    error: FaultDocument | None


class RaisedDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A host that sends or takes more machines at once for this than it usually does."""

    host: str
    direction: Literal["out", "in"]
    slots: int
    usual: int


class EvacuationDocument(Document, frozen=True):
    """`viaduct evacuate|restore`, and `show`, `watch` and `cancel` of one."""

    schema_name: Literal["viaduct.evacuation.v1"]
    evacuation: str
    kind: KindName
    host: str
    destinations: tuple[str, ...]  # to choose among; empty: all other hosts
    parallel: int
    outcome: OutcomeName | None  # the worst of its machines'; null: it goes on
    percent: int  # of the machines' memory
    machines: tuple[MovedMachineDocument, ...]
    raised: tuple[RaisedDocument, ...]
    undoes: str | None  # the evacuation that a restore undoes
    cancel_requested: bool
    driver: str
    created: str
    updated: str


class MaintenanceDocument(Document, frozen=True):
    """`viaduct host maintenance`: all hosts that are not chosen."""

    schema_name: Literal["viaduct.maintenance.v1"]
    hosts: tuple[str, ...]
