"""How an evacuation stands, as an MQTT message. Pure; what runs of it is told by its attempts."""

from orchestrator.evacuation.plan import Evacuation, Move
from orchestrator.result import timestamp
from vm_migration.daemon.publication import Publication
from vm_migration.daemon.status_documents import EvacuationMove, EvacuationState, evacuation_message
from vm_migration.daemon.status_topics import Topics


def evacuation_publication(topics: Topics, plan: Evacuation, keep: float) -> Publication:
    """Return an evacuation's whole state; one that has ended expires so many seconds after that."""
    state = EvacuationState(
        evacuation=plan.evacuation,
        kind=plan.kind.value,
        host=plan.host,
        parallel=plan.parallel,
        percent=int(100 * plan.done),
        machines=tuple(_machine(one) for one in plan.moves),
        cancel_requested=plan.cancel_requested,
        outcome=plan.outcome.value if plan.outcome else None,
        created=timestamp(plan.created_at),
        updated=timestamp(plan.updated_at),
    )
    return evacuation_message(topics, state, plan.updated_at + keep if plan.ended else None)


def _machine(move: Move) -> EvacuationMove:
    return EvacuationMove(
        machine=move.name,
        destination=move.destination or None,
        attempt=move.attempts[-1] if move.attempts else None,
        outcome=move.outcome.value if move.outcome else None,
    )
