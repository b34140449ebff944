import contextlib
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.attempt import ENDS, Phase, may_follow
from orchestrator.store import schema
from orchestrator.store.claim import CLAIM_SECONDS, claimed, is_held
from orchestrator.store.exclusive import only_daemon
from orchestrator.store.sqlite import SqliteStore
from tests.orchestrator.stores import new
from vm_migration.errors import Refused


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "orchestrator.db"


def test_a_store_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "orchestrator.db"
    file.write_text("this is no database, and longer than a page header would be" * 20)
    with pytest.raises(Refused) as refusal:
        SqliteStore(file)
    assert refusal.value.code == "store-unusable"


def test_a_store_s_files_are_their_owner_s_alone_in_a_folder_that_others_may_look_into(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with SqliteStore(tmp_path / "orchestrator.db") as store:
        store.open_attempt(new())
        found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert found == dict.fromkeys(("orchestrator.db", "orchestrator.db-wal", "orchestrator.db-shm"), 0o600)


def test_a_store_in_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SqliteStore(Path(":memory:")) as store:
        assert store.attempts() == ()
    assert list(tmp_path.iterdir()) == []


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
@given(
    age=st.floats(-100, 100), driver=st.sampled_from(["", "cli-1", "cli-2", "orchestrator-b-7000"]), sole=st.booleans()
)
def test_a_claim_is_granted_exactly_when_nobody_else_is_alive(age: float, driver: str, *, sole: bool) -> None:
    row = new(driver=driver, heartbeat=100.0 if driver else 0.0)
    own = sole and driver in {"cli-1", "orchestrator-b-7000"}
    if driver and abs(age) < CLAIM_SECONDS and not own:
        with pytest.raises(Refused):
            claimed(row, "cli-1", 100.0 + age, sole=sole)
    else:
        assert claimed(row, "cli-1", 100.0 + age, sole=sole).term == (2 if driver else 1)


def test_a_claim_that_was_signed_by_a_clock_a_day_ahead_keeps_nobody_waiting_for_that_day() -> None:
    assert not is_held(new(driver="cli-2", heartbeat=100.0 + 86_400.0), 100.0)
    assert is_held(new(driver="cli-2", heartbeat=100.0 + CLAIM_SECONDS / 2), 100.0)


def test_a_store_has_one_daemon_at_a_time(path: Path) -> None:
    with only_daemon(path), pytest.raises(Refused, match=str(os.getpid())) as refusal, only_daemon(path):
        raise AssertionError("There are two")
    assert refusal.value.code == "orchestrator-runs"
    with only_daemon(path), SqliteStore(path) as store:
        assert store.attempts() == ()
