"""Attempts that are tried again: when, where to, how often, and not after a cancel."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import retrying
from orchestrator.admission import Order, admit
from orchestrator.attempt import Attempt, Fault, Notice, Outcome, Phase, Retry
from orchestrator.choice import choose
from orchestrator.desk import Desk, LocalDesk
from orchestrator.destination import in_turn
from orchestrator.host_standing import HostStanding
from orchestrator.policy import MigrationPolicy
from orchestrator.result import migration_document
from orchestrator.retrying import CLOCKS_APART, LONGEST_WAIT, may_retry, successor, wait_left, wait_seconds
from orchestrator.store import schema
from orchestrator.store.sqlite import SqliteStore
from orchestrator.suitability import Needs
from orchestrator.surroundings import Surroundings, ignore
from tests.orchestrator.fake_agents import FakeSite, fake_site
from tests.orchestrator.test_orchestrator_daemon import daemon
from vm_migration.errors import InvalidInput, Refused

ENDED = Attempt(
    attempt="a0",
    machine="m1",
    name="guest",
    source="host-a",
    destination="host-b",
    policy=MigrationPolicy(),
    created_at=100.0,
    updated_at=100.0,
    phase=Phase.ABORTED,
    outcome=Outcome.FAILED,
    error=Fault("verify-mismatch", "Pages differ"),
    retry=Retry(left=2),
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.05)


@pytest.fixture(params=["local", "daemon"])
async def desk(request: pytest.FixtureRequest, around: Surroundings) -> AsyncIterator[Desk]:
    if request.param == "local":
        yield LocalDesk(around, "viaduct orchestrator")
        return
    async with daemon(around) as running:
        yield running


async def test_what_failed_is_tried_again_in_a_row_of_its_own(site: FakeSite, around: Surroundings, desk: Desk) -> None:
    site.world.add("guest", "host-a")
    site.world.script.failures = 2
    ended = await desk.migrate(Order("guest", "host-b", retries=3), ignore)
    assert (ended.outcome, ended.retry.left) == (Outcome.COMPLETED, 1)
    document = migration_document(ended)
    assert (len(document.earlier), document.retried_as) == (2, None)
    rows = [around.store.get(one) for one in document.earlier]
    assert [(row.outcome, row.retry.left) for row in rows] == [(Outcome.FAILED, 3), (Outcome.FAILED, 2)]
    assert [migration_document(row).retried_as for row in rows] == [document.earlier[1], ended.attempt]
    assert len({ended.epoch, *(row.epoch for row in rows)}) == 3
    assert site.world.calls.count("Discard ABORTED") == 2


def test_a_destination_to_which_nothing_was_sent_as_the_driver_went_has_not_failed() -> None:
    retry = replace(ENDED.retry, failed_at=("host-c",))
    failed = replace(ENDED, retry=retry)
    gone = replace(failed, error=Fault(retrying.DRIVER_GONE, "It went away before it started"))
    assert successor(gone, 200.0, "a1", 0.5).retry.failed_at == ("host-c",)
    assert successor(failed, 200.0, "a1", 0.5).retry.failed_at == ("host-c", "host-b")
    assert successor(gone, 200.0, "a1", 0.5).retry.left == 1


async def test_the_last_failure_is_the_answer(site: FakeSite, around: Surroundings, desk: Desk) -> None:
    site.world.add("guest", "host-a")
    site.world.script.failures = 5
    ended = await desk.migrate(Order("guest", "host-b", retries=1), ignore)
    assert (ended.outcome, ended.retry.left, len(ended.retry.earlier)) == (Outcome.FAILED, 0, 1)
    assert around.store.attempts() == ()


async def test_a_cancel_while_a_retry_waits_wins(
    site: FakeSite, around: Surroundings, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "FIRST_WAIT", 600.0)
    site.world.add("guest", "host-a")
    site.world.script.failures = 1
    task = asyncio.create_task(desk.migrate(Order("guest", "host-b", retries=1), ignore))
    async with asyncio.timeout(10):
        waiting = await _waiting(around)
        assert "waits" in waiting.reason
        with pytest.raises(Refused, match="has ended") as ended:
            await desk.cancel(await desk.attempt(waiting.retry.earlier[0]))
        assert waiting.attempt in ended.value.hint
        await desk.interrupt()
        last = await task
    assert (last.attempt, last.outcome) == (waiting.attempt, Outcome.CANCELLED)
    assert site.world.calls.count("Begin host-a") == 1


async def test_any_tries_another_host_first(around: Surroundings, tmp_path: Path) -> None:
    async with fake_site("host-a", "host-b", "host-c") as site, contextlib.AsyncExitStack() as stack:
        agents = await stack.enter_async_context(type(around.agents)(site.addresses, None))
        desk = LocalDesk(replace(around, agents=agents), "viaduct orchestrator")
        site.world.add("guest", "host-a")
        site.world.script.failures = 2
        ended = await desk.migrate(Order("guest", "any", retries=2), ignore)
    hosts = [around.store.get(one).destination for one in ended.retry.earlier]
    assert (hosts, ended.destination, ended.outcome) == (["host-b", "host-c"], "host-b", Outcome.COMPLETED)


async def test_a_daemon_goes_on_with_what_waited_to_be_tried_again(
    site: FakeSite, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "FIRST_WAIT", 1.0)  # the first daemon is gone before it is over
    site.world.add("guest", "host-a")
    site.world.script.failures = 1
    slow = replace(around, chance=lambda: 1.0)
    async with daemon(slow) as first:
        entered = await first.submit(Order("guest", "host-b", retries=1))
        waiting = await _waiting(around)
    assert waiting.retry.earlier == (entered.attempt,)
    async with daemon(around) as second, contextlib.aclosing(second.watch(waiting)) as changes:
        last = [change async for change in changes][-1]
    assert (last.outcome, last.retry.left) == (Outcome.COMPLETED, 0)


async def test_too_many_retries_are_refused(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    with pytest.raises(InvalidInput, match="11 retries"):
        await admit(around, Order("guest", "host-b", retries=11))


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({}, True),
        ({"retry": Retry()}, False),
        ({"outcome": Outcome.CANCELLED}, False),
        ({"outcome": Outcome.LOST}, False),
        ({"cancel_requested": True}, False),
        ({"outcome": Outcome.REFUSED, "blockers": (Notice("unreachable", "Silent"),)}, False),
        (
            {
                "outcome": Outcome.REFUSED,
                "blockers": (Notice("unreachable", "Silent"),),
                "retry": Retry(left=1, earlier=("x",)),
            },
            True,
        ),
        (
            {
                "outcome": Outcome.REFUSED,
                "blockers": (Notice("unreachable", "Silent"), Notice("no-p2p", "Never")),
                "retry": Retry(left=1, earlier=("x",)),
            },
            False,
        ),
    ],
)
def test_only_what_may_go_better_is_tried_again(changes: dict[str, object], *, again: bool) -> None:
    ended = replace(ENDED, **changes)  # type: ignore[arg-type]  # the fields that the table names
    assert may_retry(ended, 101.0) == again


def test_no_retry_begins_when_all_have_taken_too_long() -> None:
    all_of_them = 3 * (600.0 + 60.0 + LONGEST_WAIT)
    assert may_retry(ENDED, 100.0 + all_of_them)
    assert not may_retry(ENDED, 100.5 + all_of_them)


@given(tries=st.integers(0, 10), fraction=st.floats(0, 1))
def test_waits_grow_and_are_bounded(tries: int, fraction: float) -> None:
    wait = wait_seconds(tries, fraction)
    assert 0 < wait <= LONGEST_WAIT
    assert wait_seconds(tries, 1.0) >= wait >= wait_seconds(tries, 1.0) / 2


@given(tries=st.integers(0, 10), fraction=st.floats(0, 1), gone=st.floats(0, 120), ahead=st.floats(0, 1e6))
def test_no_wait_is_much_longer_than_the_longest_whoever_s_clock_it_was_given_by(
    tries: int, fraction: float, gone: float, ahead: float
) -> None:
    wait = wait_seconds(tries, fraction)
    left = wait_left(1000.0 + wait, 1000.0 + gone)
    assert left == pytest.approx(max(0.0, wait - gone), abs=1e-6)
    assert 0.0 <= wait_left(1000.0 + ahead + wait, 1000.0) <= LONGEST_WAIT + CLOCKS_APART
    assert wait_left(1000.0 + 86_400.0, 1000.0) == 0.0


@given(st.lists(st.sampled_from(["host-b", "host-c", "host-d"]), max_size=6))
def test_the_hosts_that_failed_come_last_and_the_last_failure_at_the_end(failures: list[str]) -> None:
    attempt = replace(ENDED, retry=Retry(left=10, anywhere=True))
    for number, host in enumerate(failures):
        attempt = successor(replace(attempt, destination=host, outcome=Outcome.FAILED), 1.0, f"a{number}", 0.5)
    hosts = choose(Needs("host-a", 0), [HostStanding(host) for host in ("host-b", "host-c", "host-d")]).considered
    asked = [one.host for one in in_turn(hosts, attempt.retry.failed_at)]
    untried = [one.host for one in hosts if one.host not in failures]
    assert asked == [*untried, *sorted(set(failures), key=lambda host: _last(failures, host))]
    shut = [replace(one, verdict="blocked", obstacles=(Notice("x", "y"),)) for one in hosts]
    assert in_turn(shut, attempt.retry.failed_at) == []
    assert attempt.retry.left == 10 - len(failures)


def test_a_store_of_the_version_before_is_used_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in schema._TABLES.split(";\n"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version={schema.VERSION}")
    row = replace(ENDED, phase=Phase.QUEUED, outcome=None, error=None)
    with SqliteStore(path) as store:
        assert store.open_attempt(row) == row
        assert store.get("a0").retry == Retry(left=2)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE attempt SET phase = 'preflight'")
        names = [name for _, name, *_ in db.execute("PRAGMA table_info(attempt)") if name != "retry"]
        marks = ", ".join("'a1'" if name == "attempt" else "'m2'" if name == "machine" else name for name in names)
        db.execute(f"INSERT INTO attempt ({', '.join(names)}) SELECT {marks} FROM attempt")  # noqa: S608 - own names
    with SqliteStore(path) as store:
        assert store.get("a1").retry == Retry()


async def _waiting(around: Surroundings) -> Attempt:
    """Return the retry that waits."""
    async with asyncio.timeout(10):
        while not (rows := [row for row in around.store.attempts() if row.retry.earlier]):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
    return rows[0]


def _last(failures: list[str], host: str) -> int:
    return max(number for number, one in enumerate(failures) if one == host)
