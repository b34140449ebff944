"""What a reader of the broker, and a collector of metrics, see of evacuations."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.attempt import Outcome
from orchestrator.driving import driving
from orchestrator.evacuation.kept import KeptEvacuations
from orchestrator.evacuation.order import EvacuationOrder
from orchestrator.evacuation.plan import Evacuation, Kind, Move
from orchestrator.evacuation.publication import evacuation_publication
from orchestrator.leading import Leading
from orchestrator.maintenance import set_maintenance
from orchestrator.readings import evacuation_readings, store_readings
from orchestrator.status import KEEP_SECONDS, StoreOutbox, publishing
from orchestrator.surroundings import Surroundings
from tests.orchestrator.fake_agents import FakeSite, fake_site
from tests.vm_migration.daemon.mqtt_brokers import Mosquitto
from vm_migration.daemon.broker_url import parse_broker
from vm_migration.daemon.status_topics import Topics
from vm_migration.telemetry import gauges
from vm_migration.telemetry.counts import EVACUATIONS_ENDED

TOPICS = Topics("home")
NAME = "ev-11111111-2222-4333-8444-555555555555"


@pytest.fixture
async def site() -> AsyncIterator[FakeSite]:
    async with fake_site("host-a", "host-b", "host-c") as running:
        yield running


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with Mosquitto(tmp_path) as mosquitto:
        yield mosquitto


def plan(*moves: Move, ended: bool = False, at: float = 100.0, kind: Kind = Kind.EVACUATE) -> Evacuation:
    return Evacuation(NAME, kind, "host-a", moves, created_at=at, updated_at=at, ended=ended)


def move(name: str, size: int = 1, outcome: Outcome | None = None, *attempts: str) -> Move:
    current = attempts[-1] if attempts and outcome is None else ""
    return Move(name, name, size, attempts=attempts, current=current, outcome=outcome)


async def test_an_evacuation_is_told_from_its_entry_to_its_end(
    site: FakeSite, around: Surroundings, broker: Mosquitto
) -> None:
    for name in ("one", "two"):
        site.world.add(name, "host-a")
    before = Counter(EVACUATIONS_ENDED.read())
    order, where = EvacuationOrder(Kind.EVACUATE, "host-a"), parse_broker(broker.running.url)
    async with (
        broker.running.reader() as reader,
        publishing(around.store, "orchestrator", "home", where, time.time) as status,
    ):
        told = replace(
            around, driver="orchestrator", observe=status.observe, observe_evacuation=status.observe_evacuation
        )
        async with driving(told) as at_work:
            await at_work.evacuations.submit(order)
            ended = await at_work.evacuations.ended(order.evacuation)
        seen = await reader.until(
            lambda messages: any(
                one.document.get("outcome") == "completed" and "/evacuation/" in one.topic for one in messages
            )
        )
    states = [one.document for one in seen if one.topic == TOPICS.evacuation(order.evacuation)]
    assert (states[0]["outcome"], states[0]["percent"], states[0]["kind"]) == (None, 0, "evacuate")
    assert (states[-1]["outcome"], states[-1]["percent"]) == ("completed", 100)
    percents = [int(str(one["percent"])) for one in states]
    assert percents == sorted(percents)
    machines = states[-1]["machines"]
    assert isinstance(machines, list)
    assert {one["machine"]: one["attempt"] for one in machines} == {one.name: one.attempts[-1] for one in ended.moves}
    async with broker.running.reader() as later:
        [kept] = await later.until_topic(f"{order.evacuation}/state")
    assert (kept.retain, kept.document) == (True, states[-1])
    assert EVACUATIONS_ENDED.read()["evacuate", "completed"] == before["evacuate", "completed"] + 1


async def test_one_that_stood_by_tells_what_the_leader_before_did_not(
    site: FakeSite, around: Surroundings, broker: Mosquitto
) -> None:
    where, kept = parse_broker(broker.running.url), KeptEvacuations(around.store.entries)
    async with (
        broker.running.reader() as reader,
        publishing(around.store, "orchestrator-2", "home", where, time.time) as status,
    ):
        assert status.publisher is not None
        await status.publisher.wait_connected()
        kept.enter(plan(move("one", 1, Outcome.COMPLETED, "a-1"), ended=True, at=time.time()))
        told = replace(around, driver="orchestrator-2", observe_evacuation=status.observe_evacuation)
        async with driving(told, sole=True):
            [one] = await reader.until_topic(f"{NAME}/state")
    assert one.document["outcome"] == "completed"
    assert site.world.calls == []


def test_one_that_has_ended_expires_and_one_that_is_open_does_not(around: Surroundings) -> None:
    waits = plan(move("one", 3, Outcome.COMPLETED, "a-1"), move("two", 1))
    assert evacuation_publication(TOPICS, waits, 9.0).expires_at is None
    ended = plan(move("one", 1, Outcome.COMPLETED, "a-1"), ended=True)
    assert evacuation_publication(TOPICS, ended, 9.0).expires_at == 109.0
    KeptEvacuations(around.store.entries).enter(ended)
    fresh = StoreOutbox(around.store, "x", TOPICS, lambda: 101.0)
    late = StoreOutbox(around.store, "x", TOPICS, lambda: 101.0 + KEEP_SECONDS)
    assert [one.topic for one in fresh.retained()] == [TOPICS.evacuation(NAME)]
    assert late.retained() == ()
    assert fresh.evacuation("ev-unknown") is None


def test_readings_tell_how_the_machines_of_each_host_stand() -> None:
    moves = (move("a", 2, Outcome.COMPLETED, "1"), move("b", 1, None, "2"), move("c", 1), move("d", 4, Outcome.FAILED))
    found = {(one.gauge, one.labels): one.value for one in evacuation_readings([plan(*moves)])}
    assert found[gauges.EVACUATIONS, ("evacuate",)] == 1
    assert found[gauges.EVACUATIONS, ("restore",)] == 0
    assert found[gauges.EVACUATION_DONE, ("host-a", "evacuate")] == 0.75
    states = {labels[2]: value for (gauge, labels), value in found.items() if gauge is gauges.EVACUATION_MACHINES}
    assert {state: count for state, count in states.items() if count} == {
        "waiting": 1,
        "moving": 1,
        "completed": 1,
        "failed": 1,
    }


async def test_only_the_one_that_leads_tells_what_the_store_holds(around: Surroundings) -> None:
    set_maintenance(around.store.entries, "host-a", on=True)
    async with driving(around) as at_work:
        leads = await store_readings(around.store, "orchestrator-1", Leading(at_work))()
    stands_by = await store_readings(around.store, "orchestrator-2", Leading())()
    assert {one.gauge: one.value for one in leads if not one.labels}[gauges.MAINTENANCE] == 1
    assert {one.gauge: one.value for one in stands_by} == {gauges.LEADS: 0, gauges.OUTBOX: 0}
