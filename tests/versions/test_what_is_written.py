"""What this version can write the one before reads: records of every state, and the orchestrator's store."""

from pathlib import Path

import msgspec

from orchestrator.attempt import Asked, Attempt, Fault, Notice, Outcome, Phase, Retry
from orchestrator.policy import MigrationPolicy
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.store import Ownership
from source_agent.terms import encode as encode_terms
from source_agent.terms import terms_of
from tests.system.attempts import policy
from tests.versions.programs import NEWER, Version
from tests.versions.written import read_by
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.handover.record import Record, encode
from vm_migration.handover.states import State


def test_a_record_of_every_state_is_read_by_the_version_before(older: Version, tmp_path: Path) -> None:
    terms = encode_terms(terms_of(policy(limit_ms=321, bandwidth=12345)))
    given: dict[str, object] = {
        "machine": "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01", "sequence": 7, "controller": 3, "opened": True,
        "highest_epoch": 5, "owned_epoch": 4, "released_epoch": 3, "attempt": "5f0e8d0a-1111-4222-8333-444455556666",
        "past_attempts": ("a", "b"), "epoch": 5, "term": 2, "peer": "host-b", "secret": "ab", "secret_hash": "cd",
        "pause": 9, "pause_bound_ms": 1000, "whole": True, "was_running": True, "run_confirmed": True,
        "former_retired": False, "instance": "i1", "reason": "asked", "policy": terms, "specification": "{}",
    }  # fmt: skip
    assert {"state", *given} == set(Record.__struct_fields__)
    records = [msgspec.convert({**given, "state": state}, Record) for state in State]
    path = tmp_path / "records"
    path.write_bytes(b"\n".join(map(encode, records)))
    assert read_by(older, "records", path) == [state.value for state in State]


OF_BOTH = [phase for phase in Phase if phase not in {Phase.STARTING, Phase.SWITCHING, Phase.RESUMING}]
"""An update has phases that 0.1.0 does not know: docs/upgrades.md says to let updates end before going back."""


def test_the_store_that_one_version_made_is_the_other_s_too(older: Version, tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    assert read_by(older, "store", path) == {}  # which made it
    expected = {}
    with SqliteStore(path) as store:
        for number, phase in enumerate(OF_BOTH):
            row = store.open_attempt(full_row(number, phase))
            store.heartbeat(row, 3.0)
            expected[row.attempt] = [phase.value, str(row.outcome), 1]
        store.record_owner(Ownership("machine-1", "guest", "host-a", 3), "orchestrator")
    assert read_by(older, "store", path) == expected
    assert read_by(NEWER, "store", path) == expected


def test_a_store_that_this_version_made_is_read_by_the_one_before(older: Version, tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    with SqliteStore(path) as store:
        row = store.open_attempt(full_row(1, Phase.PRE_COPY))
    assert read_by(older, "store", path) == {row.attempt: [row.phase.value, str(row.outcome), 1]}


def full_row(number: int, phase: Phase) -> Attempt:
    """Return an attempt of which every field says something."""
    ends = {Phase.COMPLETED: Outcome.COMPLETED, Phase.ABORTED: Outcome.FAILED, Phase.LOST: Outcome.LOST}
    return Attempt(
        attempt=f"attempt-{number}",
        machine=f"machine-{number}",
        name="guest",
        source="host-a",
        destination="host-b",
        policy=MigrationPolicy(max_bandwidth_bytes_per_s=7, on_timeout="force", profile="gentle", verify="full"),
        created_at=1.0,
        updated_at=2.0,
        priority=3,
        epoch=4,
        term=5,
        phase=phase,
        outcome=Outcome.REFUSED if phase is Phase.REFUSED else ends.get(phase),
        reason="asked",
        prepare_ms=6.0,
        error=Fault("code", "message", "hint"),
        blockers=(Notice("code", "message", "qat0"),),
        warnings=(Notice("other", "message"),),
        expected=types_pb2.Expected(total_ms=8),
        report=whole_report(),
        shared_clock=True,
        driver="orchestrator",
        heartbeat=2.0,
        cancel_requested=True,
        retry=Retry(left=1, earlier=("attempt-0",), anywhere=True),
        asked=Asked(measure_ms=250, by_host=True),
    )


def whole_report() -> source_pb2.AttemptReport:
    """Return a report with every plain field of this version set, those that the version before has not included."""
    report = source_pb2.AttemptReport()
    for descriptor in report.DESCRIPTOR.fields:
        if descriptor.message_type is None and not descriptor.is_repeated:
            value: object = "word" if descriptor.type == descriptor.TYPE_STRING else 1
            setattr(report, descriptor.name, b"1" if descriptor.type == descriptor.TYPE_BYTES else value)
    return report
