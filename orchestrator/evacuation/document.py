"""An evacuation -> the document and the two lines that tell of it. Pure."""

from collections import Counter
from typing import Final, Literal

from orchestrator.attempt import Outcome
from orchestrator.documents.evacuation import EvacuationDocument, MovedMachineDocument, RaisedDocument
from orchestrator.documents.listings import EvacuationLineDocument
from orchestrator.evacuation.plan import Kind
from orchestrator.evacuation.view import EvacuationView, MoveView
from orchestrator.result import fault_document, timestamp
from vm_migration.daemon.complaint import Complaint, complain

_DIRECTIONS: Final[dict[str, Literal["out", "in"]]] = {"out": "out", "in": "in"}
_ENDS: Final = {
    Outcome.COMPLETED: "moved",
    Outcome.FAILED: "failed",
    Outcome.CANCELLED: "cancelled",
    Outcome.REFUSED: "refused",
    Outcome.UNRESOLVED: "unresolved",
    Outcome.LOST: "lost",
}
WHAT: Final = {Kind.EVACUATE: "Evacuation", Kind.RESTORE: "Restore"}


def evacuation_document(view: EvacuationView) -> EvacuationDocument:
    """Return `viaduct.evacuation.v1`."""
    return EvacuationDocument(
        schema_name="viaduct.evacuation.v1",
        evacuation=view.evacuation,
        kind=view.kind.value,
        host=view.host,
        destinations=view.to,
        parallel=view.parallel,
        outcome=view.outcome.value if view.outcome else None,
        percent=view.percent,
        machines=tuple(_machine(one) for one in view.moves),
        raised=tuple(RaisedDocument(one.host, _DIRECTIONS[one.direction], one.slots, one.usual) for one in view.raised),
        undoes=view.undoes or None,
        cancel_requested=view.cancel_requested,
        driver=view.driver,
        created=timestamp(view.created_at),
        updated=timestamp(view.updated_at),
    )


def evacuation_line(view: EvacuationView) -> EvacuationLineDocument:
    """Return an evacuation as one of a list."""
    return EvacuationLineDocument(
        evacuation=view.evacuation,
        kind=view.kind.value,
        host=view.host,
        machines=len(view.moves),
        moved=sum(one.outcome == Outcome.COMPLETED for one in view.moves),
        percent=view.percent,
        outcome=view.outcome.value if view.outcome else None,
        driver=view.driver,
        created=timestamp(view.created_at),
    )


def _machine(move: MoveView) -> MovedMachineDocument:
    return MovedMachineDocument(
        machine=move.machine,
        name=move.name,
        ram_bytes=move.ram_bytes,
        source=move.source or None,
        destination=move.destination or None,
        attempt=move.attempts[-1] if move.attempts else None,
        attempts=move.attempts,
        phase=move.phase or None,
        outcome=move.outcome.value if move.outcome else None,
        percent=move.percent,
        downtime_ms=move.downtime_ms or None,
        wire_bytes=move.wire_bytes,
        reason=move.reason,
        error=fault_document(move.error) if move.error is not None else None,
    )


def counted(view: EvacuationView) -> str:
    """Return how many machines ended how, and how many are still to, for people."""
    ends = Counter(_ENDS[one.outcome] for one in view.moves if one.outcome is not None)
    moving = sum(one.outcome is None and bool(one.attempts) for one in view.moves)
    waiting = sum(one.outcome is None and not one.attempts for one in view.moves)
    words = [f"{ends.pop('moved', 0)} of {len(view.moves)} moved"]
    words += [f"{count} {what}" for what, count in (*ends.items(), ("moving", moving), ("waiting", waiting)) if count]
    return ", ".join(words)


def complaint_of(view: EvacuationView) -> Complaint | None:
    """Return the two lines on an evacuation that did not move all of its machines."""
    code = view.exit_code
    if view.outcome in {None, Outcome.COMPLETED} and not code:
        return None
    worst = next(one for one in view.moves if one.exit_code == code)
    why = f": {worst.name}: {worst.error.message}" if worst.error is not None else ""
    message = f"{WHAT[view.kind]} of {view.host}: {counted(view)}{why}"
    name = worst.error.code if worst.error is not None else str(worst.outcome)
    return complain(name, message, f"See every machine: viaduct show {view.evacuation}", code)
