"""Values of this agent as protobuf: machine status and attempt reports."""

from source_agent.holdings import Holding
from source_agent.progress import CANCELLABLE, Progress
from source_agent.terms import Terms
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.handover.record import Record, encode
from vm_migration.handover.states import State
from vm_migration.transfer.downtime import Downtime
from vm_migration.transfer.round_log import TimedRound
from vmm.process.control import Description, GuestFigures, Observation


def machine_status(holding: Holding, host: str) -> types_pb2.MachineStatus:
    """Return what is known of a machine."""
    record, description = holding.record, holding.description
    return types_pb2.MachineStatus(
        machine=record.machine,
        name=holding.specification.name,
        host=host,
        state=record.state,
        epoch=record.owned_epoch,
        run_state="gone" if description is None else description.run_state,
        ram_bytes=holding.specification.memory.size,
        guest=None if description is None or description.moves == "stream" else guest_report(description.guest),
        memory=None if description is None else memory_source(description),
        attempt=record.open_attempt or "",
        specification_json=holding.specification.to_json().decode(),
        warnings=[] if description is None else [blocker(warning) for warning in description.warnings],
    )


def attempt_report(
    record: Record, progress: Progress, description: Description | None, terms: Terms, *, host: str, name: str
) -> source_pb2.AttemptReport:
    """Return everything known of an attempt at its source; the terms are those in force, as tuned last."""
    report = source_pb2.AttemptReport(
        key=types_pb2.AttemptKey(
            machine=record.machine, attempt=record.attempt or "", epoch=record.epoch, term=record.term
        ),
        machine_name=name,
        source=host,
        destination=record.peer,
        state=record.state,
        phase=progress.phase,
        reason=progress.reason,
        outcome=progress.outcome,
        percent=progress.percent,
        rounds=[round_message(closed) for closed in progress.rounds.told],
        rounds_closed=progress.rounds.closed,
        verified_by=progress.verified_by,
        total_ms=progress.total_ms,
        wire_bytes=progress.wire_bytes,
        raw_bytes=progress.raw_bytes,
        transport=progress.transport,
        downtime_limit_ms=terms.downtime_limit_ms,
        max_bandwidth_bytes_per_s=terms.max_bandwidth_bytes_per_s,
        compression=progress.compression,
        bases_looked_up=progress.bases_looked_up,
        bases_found=progress.bases_found,
        remaining_bytes=progress.remaining_bytes,
        device_bytes=progress.device_bytes,
        device_left_bytes=progress.device_left_bytes,
        pages_verified=progress.pages_verified,
        pages_mismatched=progress.pages_mismatched,
        mismatched_pages=progress.mismatched,
        expected_downtime_ms=progress.expected_downtime_ms,
        sequence=progress.sequence,
        owned_epoch=record.owned_epoch,
        bulk_ms=progress.bulk_ms,
        cancel_allowed=progress.phase in CANCELLABLE,
        record=encode(record.public()).decode() if record.state in (State.ABORTED, State.LOST) else "",
        warnings=[blocker(warning) for warning in progress.warnings],
    )
    if progress.downtime is not None:
        report.downtime.CopyFrom(downtime_message(progress.downtime))
    if progress.failure is not None:
        failure = progress.failure
        report.error.CopyFrom(types_pb2.Failure(code=failure.code, message=failure.message, hint=failure.hint))
    if progress.guest is not None:
        report.guest.CopyFrom(guest_report(progress.guest))
    if description is not None:
        report.memory.CopyFrom(memory_source(description))
        report.ram_bytes = description.ram_bytes
    return report


def outgoing_report(record: Record | None, attempt: str, *, alive: bool) -> source_pb2.OutgoingReport:
    """Return what a journal says of an attempt, for its destination and for whoever recovers it; empty without one."""
    if record is None:
        return source_pb2.OutgoingReport()
    held = record.attempt == attempt
    return source_pb2.OutgoingReport(
        state=record.state if held else "",
        highest_epoch=record.highest_epoch,
        pause=record.pause if held else 0,
        process_alive=alive,
        record=encode(record.public()).decode(),
        last_state=record.state,
        owned_epoch=record.owned_epoch,
        sequence=record.sequence,
    )


def round_message(closed: TimedRound) -> types_pb2.Round:
    """Return a round's figures."""
    measured = closed.measured
    return types_pb2.Round(
        round=measured.round,
        dirty_pages=measured.dirty_pages,
        sent_pages=measured.sent_pages,
        zero_pages=measured.zero_pages,
        wire_bytes=measured.wire_bytes,
        ms=measured.ms,
        dirty_bytes_per_s=measured.dirty_bytes_per_s,
        wire_bytes_per_s=measured.wire_bytes_per_s,
        cpu_dirtied_pages=measured.cpu_dirtied_pages,
        dma_dirtied_pages=measured.dma_dirtied_pages,
        compressed_pages=measured.compressed_pages,
        delta_pages=measured.delta_pages,
        reference_pages=measured.reference_pages,
        held_back_pages=measured.held_back_pages,
        throttle_percent=measured.throttle_percent,
        device_throttle_percent=measured.device_throttle_percent,
        ended_ms=closed.ended_ms,
    )


def downtime_message(downtime: Downtime) -> types_pb2.Downtime:
    """Return a standstill's parts in milliseconds."""
    return types_pb2.Downtime(
        downtime_ms=downtime.downtime_us / 1000,
        pause_ms=downtime.pause_us / 1000,
        last_round_ms=downtime.last_round_us / 1000,
        device_state_ms=downtime.device_state_us / 1000,
        verify_ms=downtime.verify_us / 1000,
        handoff_ms=downtime.handoff_us / 1000,
        resume_ms=downtime.resume_us / 1000,
        uncertainty_ms=downtime.uncertainty_us / 1000,
        shared_clock=downtime.shared_clock,
    )


def guest_report(guest: GuestFigures) -> types_pb2.GuestReport:
    """Return what the guest says of itself."""
    return types_pb2.GuestReport(
        errors=guest.errors,
        jobs_done=guest.jobs_done,
        dirty_bytes_per_s=guest.dirty_bytes_per_s,
        dma_bytes_per_s=guest.dma_bytes_per_s,
    )


def memory_source(description: Description) -> types_pb2.MemorySource:
    """Return what RAM started from."""
    return types_pb2.MemorySource(
        kind=description.memory_kind, files=description.memory_files, sha256=description.memory_sha256
    )


def blocker(observation: Observation) -> types_pb2.Blocker:
    """Return a blocker or a warning."""
    return types_pb2.Blocker(code=observation.code, message=observation.message, device=observation.device)
