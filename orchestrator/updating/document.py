"""Updates -> the documents that tell of them. Pure."""

from orchestrator.attempt import Attempt, Outcome, Phase
from orchestrator.documents.updates import (
    StandstillDocument,
    UpdatedMachineDocument,
    UpdateDocument,
    UpdatesDocument,
)
from orchestrator.result import fault_document, guest_document, notice_documents, total_ms
from orchestrator.updating.fleet import FleetResult
from vm_migration.api.v1 import source_pb2, types_pb2


def update_document(attempt: Attempt) -> UpdateDocument:
    """Return `viaduct.update.v1`."""
    return UpdateDocument("viaduct.update.v1", updated_machine(attempt))


def updates_document(host: str, found: FleetResult) -> UpdatesDocument:
    """Return `viaduct.updates.v1`."""
    worst = found.worst
    outcome = Outcome.COMPLETED if worst is None else worst.outcome
    asked = any(one.outcome is None for one in found.ended)
    return UpdatesDocument(
        schema_name="viaduct.updates.v1",
        host=host,
        outcome=None if asked or outcome is None else outcome.value,
        updates=tuple(updated_machine(one) for one in found.ended),
        left=found.left,
    )


def updated_machine(attempt: Attempt) -> UpdatedMachineDocument:
    """Return one update, ended or not."""
    report = attempt.report or source_pb2.AttemptReport()
    stood = standstill(attempt)
    return UpdatedMachineDocument(
        attempt=attempt.attempt,
        machine=attempt.machine,
        name=attempt.name,
        host=attempt.source,
        mode=attempt.asked.update,
        epoch=attempt.epoch,
        outcome=attempt.outcome.value if attempt.outcome else None,
        total_ms=total_ms(attempt),
        downtime_ms=stood.downtime_ms if stood else None,
        downtime=_parts(stood) if stood else None,
        ram_bytes=report.ram_bytes,
        guest=guest_document(report.guest) if report.HasField("guest") else None,
        blockers=notice_documents(attempt.blockers),
        warnings=notice_documents(attempt.warnings),
        error=fault_document(attempt.error) if attempt.error else None,
    )


def standstill(attempt: Attempt) -> types_pb2.Downtime | None:
    """Return how long the guest stood still; None where it did not, or the update has not completed."""
    report = attempt.report
    if attempt.phase != Phase.COMPLETED or report is None or not report.HasField("downtime"):
        return None
    return report.downtime


def _parts(stood: types_pb2.Downtime) -> StandstillDocument:
    return StandstillDocument(stood.device_state_ms, stood.verify_ms, stood.handoff_ms, stood.resume_ms)
