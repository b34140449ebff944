"""What a source's reports make of an attempt."""

from orchestrator.attempt import Attempt, Outcome, Phase, with_report
from orchestrator.policy import MigrationPolicy
from vm_migration.api.v1 import source_pb2, types_pb2

CANCELLED = types_pb2.Failure(code="cancelled", message="Migration was cancelled", hint="")


def attempt() -> Attempt:
    return Attempt(
        attempt="a",
        machine="m",
        name="guest",
        source="host-a",
        destination="host-b",
        policy=MigrationPolicy(),
        phase=Phase.PRE_COPY,
        created_at=0.0,
        updated_at=0.0,
    )


def report(phase: str, outcome: str, sequence: int) -> source_pb2.AttemptReport:
    return source_pb2.AttemptReport(phase=phase, outcome=outcome, sequence=sequence, error=CANCELLED)


def test_an_error_that_is_told_before_the_end_is_not_the_drivers_own() -> None:
    under_way = with_report(attempt(), report("pre-copy", "", 1))
    assert under_way.error is None
    ended = with_report(under_way, report("aborted", "cancelled", 2))
    assert (ended.phase, ended.outcome) == (Phase.ABORTED, Outcome.CANCELLED)
    assert ended.error is not None
    assert ended.error.code == "cancelled"
