"""What preflight found, as `viaduct.preflight.v1`."""

import msgspec

from orchestrator.documents.preflight import (
    CandidateDocument,
    ConsideredDocument,
    FiguresDocument,
    PreflightDocument,
)
from orchestrator.preflight import Candidate, Preflight
from orchestrator.result import expected_document, notice_documents


def preflight_document(found: Preflight) -> PreflightDocument:
    """Return `viaduct.preflight.v1`."""
    chosen = found.chosen
    return PreflightDocument(
        schema_name="viaduct.preflight.v1",
        machine=found.machine.machine,
        name=found.machine.name,
        source=found.machine.host,
        destination=chosen.host if chosen else None,
        passes=chosen is not None,
        candidates=tuple(_candidate(one) for one in found.candidates),
    )


def _candidate(one: Candidate) -> CandidateDocument:
    return CandidateDocument(
        host=one.host,
        passes=one.passes,
        blockers=notice_documents(one.blockers),
        warnings=notice_documents(one.warnings),
        expected=expected_document(one.expected, shared_clock=one.shared_clock) if one.expected else None,
        profiles=tuple(expected_document(each, shared_clock=one.shared_clock) for each in one.profiles),
        choice=_considered(one),
    )


def _considered(one: Candidate) -> ConsideredDocument | None:
    if one.considered is None:
        return None
    figures = one.considered.figures
    return ConsideredDocument(
        one.considered.verdict, one.considered.unknown, msgspec.convert(figures, FiguresDocument, from_attributes=True)
    )
