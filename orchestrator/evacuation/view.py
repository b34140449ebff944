"""What is told of an evacuation: the plan, with every machine's last attempt as that stands. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.attempt import Attempt, Fault, Outcome
from orchestrator.evacuation.plan import Evacuation, Kind, Move, Raised, exit_code_of, worst_of
from orchestrator.result import percent_of


@dataclass(frozen=True, slots=True)
class MoveView:
    """One machine; source, destination and phase are empty before its first attempt."""

    machine: str
    name: str
    ram_bytes: int
    source: str
    destination: str
    attempts: tuple[str, ...]
    phase: str
    outcome: Outcome | None
    percent: int
    reason: str
    error: Fault | None
    downtime_ms: float
    wire_bytes: int
    internal: bool

    @property
    def exit_code(self) -> int:
        """The contract's code of how it ended; an open one has 0."""
        return exit_code_of(self.outcome, internal=self.internal)


@dataclass(frozen=True, slots=True)
class EvacuationView:
    """Times are seconds since 1970."""

    evacuation: str
    kind: Kind
    host: str
    to: tuple[str, ...]
    parallel: int
    undoes: str
    outcome: Outcome | None
    moves: tuple[MoveView, ...]
    raised: tuple[Raised, ...]
    cancel_requested: bool
    driver: str
    created_at: float
    updated_at: float

    @property
    def ended(self) -> bool:
        """Whether every machine has an outcome."""
        return self.outcome is not None

    @property
    def exit_code(self) -> int:
        """The worst of its machines, in the contract's order."""
        return worst_of(one.exit_code for one in self.moves)

    @property
    def percent(self) -> int:
        """How much of the machines' memory has gone; of what has an outcome, all of it."""
        whole = sum(one.ram_bytes for one in self.moves)
        done = sum(one.ram_bytes * (100 if one.outcome is not None else one.percent) for one in self.moves)
        return done // whole if whole else 100


def view_of(plan: Evacuation, rows: Mapping[str, Attempt]) -> EvacuationView:
    """Return an evacuation with its attempts; `rows` are those of its machines' last ones that are known."""
    moves = tuple(_move(one, rows.get(one.attempts[-1]) if one.attempts else None) for one in plan.moves)
    return EvacuationView(
        evacuation=plan.evacuation,
        kind=plan.kind,
        host=plan.host,
        to=plan.to,
        parallel=plan.parallel,
        undoes=plan.undoes,
        outcome=plan.outcome,
        moves=moves,
        raised=plan.raised,
        cancel_requested=plan.cancel_requested,
        driver=plan.driver,
        created_at=plan.created_at,
        updated_at=max([plan.updated_at, *(row.updated_at for row in rows.values())]),
    )


def _move(move: Move, row: Attempt | None) -> MoveView:
    report = None if row is None else row.report
    completed = row is not None and row.outcome == Outcome.COMPLETED
    return MoveView(
        machine=move.machine,
        name=move.name,
        ram_bytes=move.ram_bytes,
        source="" if row is None else row.source,
        destination=move.destination if row is None else row.destination,
        attempts=move.attempts,
        phase="" if row is None else row.phase.value,
        outcome=move.outcome,
        percent=100 if completed else percent_of(row) if row is not None and not row.ended else 0,
        reason=move.reason if row is None or move.waiting or move.outcome is not None else row.reason,
        error=move.error,
        downtime_ms=report.downtime.downtime_ms if report is not None and completed else 0.0,
        wire_bytes=sum(one.wire_bytes for one in report.rounds) if report is not None else 0,
        internal=move.internal,
    )
