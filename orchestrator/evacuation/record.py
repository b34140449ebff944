"""Evacuations <-> the daemon's wire."""

import uuid

from orchestrator.attempt import Asked, Outcome
from orchestrator.evacuation.order import EvacuationOrder
from orchestrator.evacuation.plan import MARK, Kind, Raised, is_evacuation
from orchestrator.evacuation.view import EvacuationView, MoveView
from orchestrator.policy import policy_from
from orchestrator.record import failure_message, fault_from
from vm_migration.api.v1 import orchestrator_pb2 as api
from vm_migration.errors import InternalError, InvalidInput


def request_of(order: EvacuationOrder) -> api.SubmitEvacuationRequest:
    """Return an order as it is sent."""
    policy = order.policy.message()
    if order.asked.by_host:
        policy.transport = ""
    return api.SubmitEvacuationRequest(
        evacuation=order.evacuation,
        host=order.host,
        restore=order.kind is Kind.RESTORE,
        destinations=order.to,
        parallel=order.parallel,
        policy=policy,
        priority=order.priority,
        retries=order.retries,
        measure_ms=order.asked.measure_ms,
    )


def order_of(request: api.SubmitEvacuationRequest) -> EvacuationOrder:
    """Read an order.

    Raises:
        InvalidInput: Its identifier is none, or its policy cannot be read.
    """
    return EvacuationOrder(
        kind=Kind.RESTORE if request.restore else Kind.EVACUATE,
        host=request.host,
        to=tuple(request.destinations),
        parallel=request.parallel,
        policy=policy_from(request.policy),
        asked=Asked(request.measure_ms, by_host=not request.policy.transport),
        priority=request.priority,
        retries=request.retries,
        evacuation=_identifier(request.evacuation),
    )


def _identifier(text: str) -> str:
    if is_evacuation(text):
        try:
            return f"{MARK}{uuid.UUID(text.removeprefix(MARK))}"
        except ValueError:
            pass
    raise InvalidInput("bad-evacuation", f"The evacuation is not named by {MARK} and a UUID", "Draw one")


def record_of(view: EvacuationView) -> api.EvacuationRecord:
    """Return an evacuation as the daemon sends it."""
    return api.EvacuationRecord(
        evacuation=view.evacuation,
        kind=view.kind,
        host=view.host,
        destinations=view.to,
        parallel=view.parallel,
        outcome=view.outcome or "",
        created_at=view.created_at,
        updated_at=view.updated_at,
        driver=view.driver,
        cancel_requested=view.cancel_requested,
        moves=[_move_record(one) for one in view.moves],
        raised=[
            api.RaisedSlots(host=one.host, direction=one.direction, slots=one.slots, usual=one.usual)
            for one in view.raised
        ],
        undoes=view.undoes,
    )


def view_from(record: api.EvacuationRecord) -> EvacuationView:
    """Read an evacuation that the daemon sent.

    Raises:
        InternalError: A kind or an outcome that this version does not know.
    """
    if record.kind not in set(Kind):
        raise InternalError("unknown-kind", f"The orchestrator speaks of {record.kind}")
    return EvacuationView(
        evacuation=record.evacuation,
        kind=Kind(record.kind),
        host=record.host,
        to=tuple(record.destinations),
        parallel=record.parallel,
        undoes=record.undoes,
        outcome=_outcome(record.outcome),
        moves=tuple(_move(one) for one in record.moves),
        raised=tuple(Raised(one.host, one.direction, one.slots, one.usual) for one in record.raised),
        cancel_requested=record.cancel_requested,
        driver=record.driver,
        created_at=record.created_at,
        updated_at=record.updated_at,
    )


def _move_record(move: MoveView) -> api.MoveRecord:
    record = api.MoveRecord(
        machine=move.machine,
        name=move.name,
        ram_bytes=move.ram_bytes,
        source=move.source,
        destination=move.destination,
        attempts=move.attempts,
        phase=move.phase,
        outcome=move.outcome or "",
        percent=move.percent,
        reason=move.reason,
        downtime_ms=move.downtime_ms,
        wire_bytes=move.wire_bytes,
        internal=move.internal,
    )
    if move.error is not None:
        record.error.CopyFrom(failure_message(move.error))
    return record


def _move(record: api.MoveRecord) -> MoveView:
    return MoveView(
        machine=record.machine,
        name=record.name,
        ram_bytes=record.ram_bytes,
        source=record.source,
        destination=record.destination,
        attempts=tuple(record.attempts),
        phase=record.phase,
        outcome=_outcome(record.outcome),
        percent=record.percent,
        reason=record.reason,
        error=fault_from(record.error) if record.HasField("error") else None,
        downtime_ms=record.downtime_ms,
        wire_bytes=record.wire_bytes,
        internal=record.internal,
    )


def _outcome(text: str) -> Outcome | None:
    if text not in {"", *Outcome}:
        raise InternalError("unknown-outcome", f"The orchestrator speaks of outcome {text}")
    return Outcome(text) if text else None
