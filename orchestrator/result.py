"""An attempt -> the documents that tell of it. Pure."""

import datetime
from collections.abc import Iterable
from typing import Final, Literal, get_args

from orchestrator.attempt import Attempt, Event, Fault, Notice, Phase
from orchestrator.documents.listings import AttemptDocument, EventDocument, OneAttemptDocument
from orchestrator.documents.migration import (
    DowntimeDocument,
    ExpectedDocument,
    FaultDocument,
    GuestDocument,
    LimitsDocument,
    MemoryDocument,
    MigrationDocument,
    NoticeDocument,
    RoundDocument,
    VerifiedBy,
)
from orchestrator.limits import Limits, limits_of
from vm_migration.api.v1 import source_pb2, types_pb2

_VERIFIED_BY: Final[dict[str, VerifiedBy]] = {name: name for name in get_args(VerifiedBy)}


def migration_document(attempt: Attempt) -> MigrationDocument:
    """Return `viaduct.migration.v1` of an attempt, ended or not."""
    report = attempt.report or source_pb2.AttemptReport()
    downtime = report.downtime if attempt.phase == Phase.COMPLETED and report.HasField("downtime") else None
    clock = _clock(shared=report.downtime.shared_clock)
    return MigrationDocument(
        schema_name="viaduct.migration.v1",
        attempt=attempt.attempt,
        machine=attempt.machine,
        source=attempt.source,
        destination=attempt.destination,
        epoch=attempt.epoch,
        outcome=attempt.outcome.value if attempt.outcome else None,
        transport=attempt.policy.transport,
        verified_by=_VERIFIED_BY.get(report.verified_by, "none"),
        total_ms=total_ms(attempt),
        prepare_ms=attempt.prepare_ms or None,
        downtime_ms=downtime.downtime_ms if downtime else None,
        clock=clock if downtime else None,
        downtime=_downtime(downtime) if downtime else None,
        rounds=tuple(_round(one) for one in report.rounds),
        memory=memory_document(report.memory) if report.HasField("memory") else None,
        ram_bytes=report.ram_bytes,
        wire_bytes=report.wire_bytes,
        pages_verified=report.pages_verified,
        pages_mismatched=report.pages_mismatched,
        guest=guest_document(report.guest) if report.HasField("guest") else None,
        expected=expected_document(attempt.expected, shared_clock=attempt.shared_clock) if attempt.expected else None,
        blockers=notice_documents(attempt.blockers),
        warnings=notice_documents(attempt.warnings),
        error=fault_document(attempt.error) if attempt.error else None,
        earlier=attempt.retry.earlier,
        retried_as=attempt.retry.next or None,
        rounds_closed=rounds_closed(attempt.report),
        limits=_limits(limits_of(attempt)),
        delta_hit_rate=delta_hit_rate(report),
    )


def attempt_document(attempt: Attempt) -> AttemptDocument:
    """Return an attempt as a row of a list."""
    return AttemptDocument(
        attempt=attempt.attempt,
        machine=attempt.machine,
        name=attempt.name,
        source=attempt.source,
        destination=attempt.destination,
        epoch=attempt.epoch,
        term=attempt.term,
        phase=attempt.phase.value,
        outcome=attempt.outcome.value if attempt.outcome else None,
        percent=percent_of(attempt),
        reason=attempt.reason,
        priority=attempt.priority,
        driver=attempt.driver,
        created=timestamp(attempt.created_at),
        updated=timestamp(attempt.updated_at),
        retries_left=attempt.retry.left,
        update=attempt.asked.update or None,
    )


def one_attempt_document(attempt: Attempt, events: Iterable[Event] | None = None) -> OneAttemptDocument:
    """Return `viaduct.attempt.v1`."""
    return OneAttemptDocument(
        schema_name="viaduct.attempt.v1",
        attempt=attempt_document(attempt),
        result=migration_document(attempt),
        events=None if events is None else tuple(_event(event) for event in events),
    )


def percent_of(attempt: Attempt) -> int:
    """Return how much of its phase is done, 0 to 100."""
    if attempt.phase == Phase.COMPLETED:
        return 100
    return min(attempt.report.percent, 100) if attempt.report is not None else 0


def rounds_closed(report: source_pb2.AttemptReport | None) -> int:
    """Return how many rounds there were; a report of many tells some, and one of an older agent tells all."""
    return 0 if report is None else report.rounds_closed or len(report.rounds)


def delta_hit_rate(report: source_pb2.AttemptReport) -> float | None:
    """Return how many of the pages that a delta was tried for had a base, 0 to 1; None where it was tried for none."""
    return report.bases_found / report.bases_looked_up if report.bases_looked_up else None


def timestamp(seconds: float) -> str:
    """Return seconds since 1970 as RFC 3339 in UTC, to the millisecond."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def notice_documents(notices: Iterable[Notice]) -> tuple[NoticeDocument, ...]:
    """Return blockers or warnings as documents."""
    return tuple(NoticeDocument(one.code, one.message, one.device) for one in notices)


def fault_document(fault: Fault) -> FaultDocument:
    """Return an error as a document."""
    return FaultDocument(fault.code, fault.message, fault.hint)


def expected_document(expected: types_pb2.Expected, *, shared_clock: bool) -> ExpectedDocument:
    """Return an expectation, and on which clock the downtime will be measured."""
    told = has_range(expected)
    return ExpectedDocument(
        total_ms=expected.total_ms,
        prepare_ms=expected.prepare_ms,
        downtime_ms=expected.downtime_ms,
        clock=_clock(shared=shared_clock),
        rounds=expected.rounds,
        total_low_ms=expected.total_low_ms if told else None,
        total_high_ms=expected.total_high_ms if told else None,
        downtime_low_ms=expected.downtime_low_ms if told else None,
        downtime_high_ms=expected.downtime_high_ms if told else None,
        converges=expected.converges if told else None,
        profile=expected.profile or None,
        link_bytes_per_s=expected.link_bytes_per_s if told else None,
        dirty_bytes_per_s=expected.dirty_bytes_per_s if told else None,
    )


def has_range(expected: types_pb2.Expected) -> bool:
    """Return whether an expectation tells its bounds; a source of 0.1.0 does not."""
    return expected.total_high_ms > 0


def guest_document(guest: types_pb2.GuestReport) -> GuestDocument:
    """Return the guest's own numbers."""
    return GuestDocument(guest.errors, guest.jobs_done, guest.dirty_bytes_per_s, guest.dma_bytes_per_s)


def memory_document(memory: types_pb2.MemorySource) -> MemoryDocument:
    """Return where the first contents of RAM came from."""
    return MemoryDocument("image" if memory.kind == "image" else "mixture", tuple(memory.files), memory.sha256)


def total_ms(attempt: Attempt) -> float:
    """Return how long an attempt took, as its source says, or as its row does."""
    if attempt.report is not None and attempt.report.total_ms:
        return attempt.report.total_ms
    return round((attempt.updated_at - attempt.created_at) * 1000, 3)


def _clock(*, shared: bool) -> Literal["shared", "source"]:
    return "shared" if shared else "source"


def _limits(limits: Limits) -> LimitsDocument:
    return LimitsDocument(limits.downtime_ms, limits.bandwidth_bytes_per_s or None, limits.tuned)


def _downtime(downtime: types_pb2.Downtime) -> DowntimeDocument:
    return DowntimeDocument(
        pause_ms=downtime.pause_ms,
        last_round_ms=downtime.last_round_ms,
        device_state_ms=downtime.device_state_ms,
        verify_ms=downtime.verify_ms,
        handoff_ms=downtime.handoff_ms,
        resume_ms=downtime.resume_ms,
        uncertainty_ms=downtime.uncertainty_ms,
    )


def _round(one: types_pb2.Round) -> RoundDocument:
    return RoundDocument(
        round=one.round,
        dirty_pages=one.dirty_pages,
        sent_pages=one.sent_pages,
        zero_pages=one.zero_pages,
        wire_bytes=one.wire_bytes,
        ms=one.ms,
        dirty_bytes_per_s=one.dirty_bytes_per_s,
        wire_bytes_per_s=one.wire_bytes_per_s,
        cpu_dirtied_pages=one.cpu_dirtied_pages,
        dma_dirtied_pages=one.dma_dirtied_pages,
        compressed_pages=one.compressed_pages,
        delta_pages=one.delta_pages,
        reference_pages=one.reference_pages,
        held_back_pages=one.held_back_pages,
        throttle_percent=one.throttle_percent,
        device_throttle_percent=one.device_throttle_percent,
        ended_ms=one.ended_ms,
    )


def _event(event: Event) -> EventDocument:
    return EventDocument(
        sequence=event.sequence,
        phase=event.phase.value,
        outcome=event.outcome.value if event.outcome else None,
        reason=event.reason,
        at=timestamp(event.at),
    )
