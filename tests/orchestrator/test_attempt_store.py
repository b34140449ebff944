import contextlib
import multiprocessing
import os
import sqlite3
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.attempt import ENDS, Asked, Attempt, Fault, IllegalPhase, Notice, Outcome, Phase, may_follow
from orchestrator.policy import MigrationPolicy
from orchestrator.store import schema
from orchestrator.store.claim import CLAIM_SECONDS, claimed
from orchestrator.store.exclusive import only_daemon
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.store import Ownership
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.errors import InvalidInput, Refused, Stale


def new(attempt: str = "a" * 8, machine: str = "m1", **changes: object) -> Attempt:
    row = Attempt(
        attempt=attempt,
        machine=machine,
        name="qat-guest",
        source="host-a",
        destination="host-b",
        policy=MigrationPolicy(),
        created_at=100.0,
        updated_at=100.0,
        driver="cli-1",
        heartbeat=100.0,
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # the fields that a test names


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "orchestrator.db"


def test_what_is_written_is_read_back_whole(path: Path) -> None:
    row = new(
        error=Fault("timeout", "It took too long", "Give it more"),
        warnings=(Notice("slow-link", "The link is slow"),),
        expected=types_pb2.Expected(total_ms=12.5, rounds=3),
        report=source_pb2.AttemptReport(phase="begun", ram_bytes=1 << 40, rounds=[types_pb2.Round(round=1)]),
        asked=Asked(measure_ms=250, by_host=True),
    )
    with SqliteStore(path) as store:
        store.open_attempt(row)
    with SqliteStore(path) as store:
        assert store.get(row.attempt) == row


def test_one_machine_has_one_open_attempt_and_the_second_is_told_who_holds_it(path: Path) -> None:
    with SqliteStore(path) as store:
        first = store.open_attempt(new("first"))
        assert store.open_attempt(new("first")) == first
        with pytest.raises(Refused, match=r"first.*cli-1") as refusal:
            store.open_attempt(new("second"))
        assert refusal.value.code == "attempt-open"
        store.open_attempt(new("third", machine="m2"))
        store.save(first.to(Phase.REFUSED, Outcome.REFUSED), 101.0)
        store.open_attempt(new("second"))


def test_events_have_no_gap_and_leave_through_the_outbox_in_order(path: Path) -> None:
    with SqliteStore(path) as store:
        row = store.open_attempt(new())
        for phase in (Phase.PREFLIGHT, Phase.PREFLIGHT, Phase.BEGINNING, Phase.PREPARING):
            row = store.save(row.to(phase), 101.0)
        events = store.events(row.attempt)
        assert [event.sequence for event in events] == [1, 2, 3, 4]
        assert [event.phase for event in events] == [Phase.QUEUED, Phase.PREFLIGHT, Phase.BEGINNING, Phase.PREPARING]
        pending = store.pending("cli-1", 100)
        assert [(one.kind, one.sequence) for one in pending if one.kind == "event"] == [
            ("event", n) for n in range(1, 5)
        ]
        store.acknowledge("cli-1", pending[3].number)
        assert store.pending("cli-1", 100) == pending[4:]
        assert store.pending("somebody-else", 100) == ()


def test_an_ended_attempt_goes_nowhere(path: Path) -> None:
    with SqliteStore(path) as store:
        row = store.save(store.open_attempt(new()).to(Phase.REFUSED, Outcome.REFUSED), 101.0)
        with pytest.raises(IllegalPhase):
            store.save(replace(row, phase=Phase.PREPARING), 102.0)
        with pytest.raises(Refused):
            store.claim(row.attempt, "cli-2", 1000.0)


def test_a_silent_driver_is_taken_over_with_the_next_term_and_cannot_write_any_more(path: Path) -> None:
    with SqliteStore(path) as store:
        row = store.open_attempt(new())
        with pytest.raises(Refused) as held:
            store.claim(row.attempt, "cli-2", 101.0)
        assert held.value.code == "attempt-held"
        taken = store.claim(row.attempt, "cli-2", 100.0 + CLAIM_SECONDS + 1)
        assert (taken.term, taken.driver) == (2, "cli-2")
        with pytest.raises(Stale):
            store.save(row.to(Phase.PREFLIGHT), 112.0)
        with pytest.raises(Stale):
            store.heartbeat(row, 112.0)
        assert {one.kind for one in store.pending("cli-2", 100)} == {"event", "state"}


def test_a_wish_to_cancel_survives_what_the_driver_writes(path: Path) -> None:
    with SqliteStore(path) as store:
        row = store.open_attempt(new())
        store.request_cancel(row.attempt)
        assert store.save(row.to(Phase.PREFLIGHT), 101.0).cancel_requested
        assert store.heartbeat(row, 102.0).cancel_requested


def test_owners_are_compared_by_epoch(path: Path) -> None:
    with SqliteStore(path) as store:
        assert store.record_owner(Ownership("m1", "guest", "host-b", 5), "cli-1")
        assert not store.record_owner(Ownership("m1", "guest", "host-c", 4), "cli-1")
        assert not store.record_owner(Ownership("m1", "guest", "host-c", 5), "cli-1")
        assert store.record_owner(Ownership("m1", "guest", "host-b", 5), "cli-1")
        assert store.owners() == (Ownership("m1", "guest", "host-b", 5),)
        assert [one.kind for one in store.pending("cli-1", 10)] == ["owner"]


def test_only_what_ended_long_ago_and_is_published_is_forgotten(path: Path) -> None:
    with SqliteStore(path) as store:
        open_row = store.open_attempt(new("open"))
        ended = store.open_attempt(new("ended", machine="m2"))
        store.save(ended.to(Phase.REFUSED, Outcome.REFUSED), 101.0)
        assert store.prune(before=1000.0) == 0
        store.acknowledge("cli-1", 1000)
        assert store.prune(before=50.0) == 0
        assert store.prune(before=1000.0) == 1
        assert [row.attempt for row in store.attempts(everything=True)] == [open_row.attempt]
        assert store.events("ended") == ()


def test_an_attempt_is_found_by_the_start_of_its_name(path: Path) -> None:
    with SqliteStore(path) as store:
        store.open_attempt(new("abc1", machine="m1"))
        store.open_attempt(new("abd2", machine="m2"))
        assert store.find("abc").attempt == "abc1"
        for start, code in (("ab", "ambiguous-attempt"), ("x", "unknown-attempt"), ("", "unknown-attempt")):
            with pytest.raises(InvalidInput) as error:
                store.find(start)
            assert error.value.code == code


def test_a_store_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "orchestrator.db"
    file.write_text("this is no database, and longer than a page header would be" * 20)
    with pytest.raises(Refused) as refusal:
        SqliteStore(file)
    assert refusal.value.code == "store-unusable"


def _enter(path: Path, number: int, barrier: Barrier) -> None:
    with SqliteStore(path) as store:
        barrier.wait()
        row = store.open_attempt(new(f"attempt-{number}", machine=f"m{number}", driver=f"cli-{number}"))
        for phase in (Phase.PREFLIGHT, Phase.BEGINNING, Phase.PREPARING):
            row = store.save(row.to(phase), 101.0)


def test_who_reads_a_store_does_not_wait_for_a_writer_that_is_frozen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.1)
    with SqliteStore(path) as store:
        store.open_attempt(new())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as frozen:
        frozen.execute("BEGIN IMMEDIATE")
        with SqliteStore(path) as store:
            assert [row.attempt for row in store.attempts()] == [new().attempt]
            with pytest.raises(Refused, match="locked"):
                store.request_cancel(new().attempt)


def test_several_processes_write_at_once(path: Path) -> None:
    SqliteStore(path).close()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_enter, args=(path, number, barrier)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with SqliteStore(path) as store:
        rows = store.attempts()
        assert len(rows) == 3
        for row in rows:
            assert [event.sequence for event in store.events(row.attempt)] == [1, 2, 3, 4]


phases = st.sampled_from(list(Phase))


@settings(max_examples=200)
@given(before=phases, middle=phases, after=phases)
def test_phases_never_go_back_and_ends_are_final(before: Phase, middle: Phase, after: Phase) -> None:
    if before in ENDS:
        assert not may_follow(before, after) or before == after
    if before != after and may_follow(before, after):
        assert not may_follow(after, before)
    if may_follow(before, middle) and may_follow(middle, after) and after != Phase.REFUSED:
        assert may_follow(before, after)


@settings(max_examples=100)
@given(age=st.floats(0, 100), driver=st.sampled_from(["", "cli-1", "cli-2"]), sole=st.booleans())
def test_a_claim_is_granted_exactly_when_nobody_else_is_alive(age: float, driver: str, *, sole: bool) -> None:
    row = new(driver=driver, heartbeat=100.0 if driver else 0.0)
    own = sole and driver == "cli-1"
    if driver and age < CLAIM_SECONDS and not own:
        with pytest.raises(Refused):
            claimed(row, "cli-1", 100.0 + age, sole=sole)
    else:
        assert claimed(row, "cli-1", 100.0 + age, sole=sole).term == (2 if driver else 1)


def test_a_driver_that_comes_back_under_its_name_is_not_its_earlier_life(path: Path) -> None:
    with SqliteStore(path) as store:
        row = store.open_attempt(new())
        with pytest.raises(Refused):
            store.claim(row.attempt, "cli-1", 101.0)
        assert store.claim(row.attempt, "cli-1", 101.0, sole=True).term == 2
        with pytest.raises(Stale):
            store.save(row.to(Phase.PREFLIGHT), 102.0)


def test_a_store_has_one_daemon_at_a_time(path: Path) -> None:
    with only_daemon(path), pytest.raises(Refused, match=str(os.getpid())) as refusal, only_daemon(path):
        raise AssertionError("There are two")
    assert refusal.value.code == "orchestrator-runs"
    with only_daemon(path), SqliteStore(path) as store:
        assert store.attempts() == ()


def test_a_claim_tells_the_state_again(path: Path) -> None:
    with SqliteStore(path) as store:
        row = store.open_attempt(new())
        store.acknowledge("cli-1", 1000)
        store.claim(row.attempt, "cli-2", 1000.0)
        assert [one.kind for one in store.pending("cli-2", 10)] == ["state"]
