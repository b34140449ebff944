"""A store that cannot be used for a while: nothing new starts, and what runs is driven on when it is back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import claims, driven_row, service
from orchestrator.admission import Order
from orchestrator.attempt import Attempt, Outcome
from orchestrator.driven_row import give_back
from orchestrator.driving import Driving, driving
from orchestrator.store import claim
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.store import STORE_UNUSABLE
from orchestrator.surroundings import Surroundings
from tests.orchestrator.fake_agents import FakeSite
from tests.orchestrator.stores import new
from vm_migration.errors import Refused

DEADLINE = 20.0


class RestingStore(SqliteStore):
    """A store that rests when it is told to, as an etcd without a majority does."""

    rests = False
    refused = 0

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        if self.rests:
            self.refused += 1
            raise Refused(STORE_UNUSABLE, "The store rests", "Wait")
        with super()._translated():
            yield


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RestingStore]:
    with RestingStore(tmp_path / "resting.db") as opened:
        yield opened


@pytest.fixture
async def at_work(around: Surroundings, store: RestingStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Driving]:
    """A daemon whose waits are short."""
    monkeypatch.setattr(driven_row, "_BACKOFF", (0.01,))
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(service, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(claim, "CLAIM_SECONDS", 0.3)
    async with driving(replace(around, store=store, driver="orchestrator"), sole=True) as running:
        yield running


async def in_flight(site: FakeSite, at_work: Driving) -> Attempt:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    attempt = await at_work.queue.submit(Order("guest", "host-b"))
    await site.world.script.reached.wait()
    return attempt


async def ended(store: RestingStore, attempt: Attempt) -> Attempt:
    async with asyncio.timeout(DEADLINE):
        while not (row := store.get(attempt.attempt)).ended:  # noqa: ASYNC110 - the row has no event here
            await asyncio.sleep(0.02)
    return row


async def test_a_short_rest_is_waited_out_by_whoever_writes(
    site: FakeSite, store: RestingStore, at_work: Driving
) -> None:
    attempt = await in_flight(site, at_work)
    store.rests = True
    site.world.script.go.set()
    async with asyncio.timeout(DEADLINE):
        while store.refused < 2:  # noqa: ASYNC110 - counted in other threads
            await asyncio.sleep(0.005)
    store.rests = False
    row = await ended(store, attempt)
    assert row.outcome == Outcome.COMPLETED
    assert [owner.host for owner in store.owners()] == ["host-b"]


async def test_after_a_long_rest_what_had_run_on_is_driven_to_its_end_in_the_next_term(
    site: FakeSite, store: RestingStore, at_work: Driving
) -> None:
    attempt = await in_flight(site, at_work)
    site.world.add("another", "host-a")
    store.rests = True
    with pytest.raises(Refused) as refusal:
        await at_work.queue.submit(Order("another", "host-b"))
    assert refusal.value.code == STORE_UNUSABLE
    site.world.script.go.set()
    async with asyncio.timeout(DEADLINE):
        while at_work.queue._drives:  # noqa: ASYNC110 - the drive has given up, and nobody could be told
            await asyncio.sleep(0.02)
    store.rests = False
    row = await ended(store, attempt)
    assert (row.outcome, row.term) == (Outcome.COMPLETED, 2)
    assert [owner.host for owner in store.owners()] == ["host-b"]
    assert store.attempts() == ()


def test_a_claim_is_given_back_on_the_way_out_or_ends_by_itself(store: RestingStore) -> None:
    row = store.open_attempt(new())
    store.rests = True
    give_back(store, row)
    store.rests = False
    assert store.get(row.attempt).driver == row.driver
    give_back(store, row)
    assert store.get(row.attempt).driver == ""
