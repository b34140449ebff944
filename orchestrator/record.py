"""Attempts and events <-> the daemon's wire."""

from orchestrator.attempt import Asked, Attempt, Event, Fault, Outcome, Phase, Retry, notices
from orchestrator.policy import policy_from
from vm_migration.api.v1 import orchestrator_pb2, types_pb2
from vm_migration.errors import InternalError, MigrationError


def record_of(attempt: Attempt) -> orchestrator_pb2.AttemptRecord:
    """Return an attempt as the daemon sends it."""
    record = orchestrator_pb2.AttemptRecord(
        key=attempt.key(),
        name=attempt.name,
        source=attempt.source,
        destination=attempt.destination,
        phase=attempt.phase.value,
        outcome=attempt.outcome.value if attempt.outcome else "",
        reason=attempt.reason,
        policy=attempt.policy.message(),
        priority=attempt.priority,
        prepare_ms=attempt.prepare_ms,
        blockers=[types_pb2.Blocker(code=n.code, message=n.message, device=n.device) for n in attempt.blockers],
        warnings=[types_pb2.Blocker(code=n.code, message=n.message, device=n.device) for n in attempt.warnings],
        report=attempt.report,
        expected=attempt.expected,
        driver=attempt.driver,
        created_at=attempt.created_at,
        updated_at=attempt.updated_at,
        cancel_requested=attempt.cancel_requested,
        shared_clock=attempt.shared_clock,
        retries_left=attempt.retry.left,
        earlier=attempt.retry.earlier,
        next_attempt=attempt.retry.next,
        update=attempt.asked.update,
    )
    if attempt.error is not None:
        record.error.CopyFrom(failure_message(attempt.error))
    return record


def attempt_of(record: orchestrator_pb2.AttemptRecord) -> Attempt:
    """Read an attempt that the daemon sent.

    Raises:
        InternalError: A phase or an outcome that this version does not know.
    """
    if record.phase not in set(Phase) or record.outcome not in {"", *Outcome}:
        raise InternalError("unknown-phase", f"The orchestrator speaks of phase {record.phase}, {record.outcome}")
    return Attempt(
        attempt=record.key.attempt,
        machine=record.key.machine,
        name=record.name,
        source=record.source,
        destination=record.destination,
        policy=policy_from(record.policy),
        created_at=record.created_at,
        updated_at=record.updated_at,
        priority=record.priority,
        epoch=record.key.epoch,
        term=record.key.term,
        phase=Phase(record.phase),
        outcome=Outcome(record.outcome) if record.outcome else None,
        reason=record.reason,
        prepare_ms=record.prepare_ms,
        error=fault_from(record.error) if record.HasField("error") else None,
        blockers=notices(record.blockers),
        warnings=notices(record.warnings),
        expected=record.expected if record.HasField("expected") else None,
        report=record.report if record.HasField("report") else None,
        shared_clock=record.shared_clock,
        driver=record.driver,
        cancel_requested=record.cancel_requested,
        retry=Retry(left=record.retries_left, earlier=tuple(record.earlier), next=record.next_attempt),
        asked=Asked(update=record.update),
    )


def failure_message(error: MigrationError | Fault) -> types_pb2.Failure:
    """Return an error as the daemon sends it."""
    return types_pb2.Failure(code=error.code, message=error.message, hint=error.hint)


def fault_from(failure: types_pb2.Failure) -> Fault:
    """Read an error that the daemon sent."""
    return Fault(failure.code, failure.message, failure.hint)


def event_message(event: Event) -> orchestrator_pb2.AttemptEvent:
    """Return an event as the daemon sends it."""
    return orchestrator_pb2.AttemptEvent(
        sequence=event.sequence,
        phase=event.phase.value,
        outcome=event.outcome.value if event.outcome else "",
        reason=event.reason,
        at=event.at,
    )


def events_of(record: orchestrator_pb2.AttemptRecord) -> tuple[Event, ...]:
    """Read the events that came with an attempt."""
    return tuple(
        Event(
            attempt=record.key.attempt,
            sequence=one.sequence,
            phase=Phase(one.phase),
            outcome=Outcome(one.outcome) if one.outcome else None,
            reason=one.reason,
            at=one.at,
        )
        for one in record.events
    )
