import json
import time
from dataclasses import replace
from pathlib import Path

from orchestrator.admission import Order, admit
from orchestrator.attempt import Attempt, Outcome, Phase
from orchestrator.drive import Drive
from orchestrator.policy import MigrationPolicy
from orchestrator.status import KEEP_SECONDS, StoreOutbox, publishing
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.store import Ownership, Store
from orchestrator.surroundings import Surroundings
from tests.orchestrator.fake_agents import FakeSite
from tests.vm_migration.daemon.mqtt_brokers import Mosquitto, Received, free_port
from vm_migration.daemon.broker_url import parse_broker
from vm_migration.daemon.status_topics import Topics


def entered(store: Store, driver: str = "cli-host-1") -> Attempt:
    return store.open_attempt(
        Attempt(
            attempt="11111111-2222-3333-4444-555555555555",
            machine="m1",
            name="qat-guest",
            source="host-a",
            destination="host-b",
            policy=MigrationPolicy(),
            created_at=100.0,
            updated_at=100.0,
            driver=driver,
            heartbeat=100.0,
        )
    )


def test_every_transition_leaves_as_an_event_and_a_state_and_none_twice(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "store.db") as store:
        row = entered(store)
        outbox = StoreOutbox(store, "cli-host-1", Topics("home"), lambda: 101.0)
        row = store.save(row.to(Phase.PREFLIGHT), 101.0)
        store.save(row.to(Phase.REFUSED, Outcome.REFUSED), 102.0, owner=Ownership("m1", "qat-guest", "host-a", 3))
        entries = outbox.pending(100)
        topics = [one.publication.topic.removeprefix("viaduct/v1/home/") for one in entries]
        assert topics[-1] == "machine/qat-guest/owner"
        assert {topic.rpartition("/")[2] for topic in topics[:-1]} == {"event", "state"}
        events = [json.loads(one.publication.payload) for one in entries if one.publication.topic.endswith("/event")]
        assert [one["sequence"] for one in events] == [1, 2, 3]
        assert [one["phase"] for one in events] == ["queued", "preflight", "refused"]
        outbox.acknowledge(entries[-1].number)
        assert outbox.pending(100) == ()


def test_retained_topics_are_what_the_store_says_now(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "store.db") as store:
        row = entered(store)
        store.save(row.to(Phase.REFUSED, Outcome.REFUSED), 102.0, owner=Ownership("m1", "qat-guest", "host-a", 3))
        state, owner = StoreOutbox(store, "x", Topics("home"), lambda: 103.0).retained()
        assert (state.retain, state.expires_at) == (True, 102.0 + KEEP_SECONDS)
        document = json.loads(state.payload)
        assert (document["phase"], document["outcome"], document["sequence"]) == ("refused", "refused", 2)
        assert json.loads(owner.payload)["host"] == "host-a"
        late = StoreOutbox(store, "x", Topics("home"), lambda: 103.0 + KEEP_SECONDS)
        assert [one.topic for one in late.retained()] == [owner.topic]


async def test_what_a_dead_driver_left_is_adopted(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "store.db") as store:
        entered(store, driver="cli-dead-1")
        store.adopt_outbox("cli-host-2", 105.0, 10.0)
        assert store.pending("cli-host-2", 10) == ()
        store.adopt_outbox("cli-host-2", 200.0, 10.0)
        assert len(store.pending("cli-host-2", 10)) == 2


async def test_a_migration_is_published_whole_and_in_order(
    site: FakeSite, around: Surroundings, tmp_path: Path
) -> None:
    site.world.add("guest", "host-a")
    async with Mosquitto(tmp_path) as broker, broker.running.reader() as reader:
        where = parse_broker(broker.running.url)
        async with publishing(around.store, around.driver, "home", where, time.time) as status:
            ended = await _drive(replace(around, observe=status.observe))
            messages = await reader.until(
                lambda seen: any(one.topic.endswith("/owner") for one in seen) and "completed" in _phases(seen)
            )
        await reader.until(lambda seen: seen[-1].topic.endswith(f"orchestrator/{around.driver}/status"))
    events = [one.document for one in messages if one.topic.endswith(f"migration/{ended.attempt}/event")]
    assert [one["sequence"] for one in events] == list(range(1, len(events) + 1))
    assert [one["phase"] for one in events] == [one.phase.value for one in around.store.events(ended.attempt)]
    (owner,) = [one.document for one in messages if one.topic.endswith("machine/guest/owner")]
    assert (owner["host"], owner["epoch"]) == ("host-b", 2)
    states = [one.document for one in messages if one.topic.endswith("/state")]
    assert (states[-1]["outcome"], states[-1]["percent"]) == ("completed", 100)


async def test_what_a_dead_broker_missed_comes_with_the_next_driver(
    site: FakeSite, around: Surroundings, tmp_path: Path
) -> None:
    broker = Mosquitto(tmp_path, port=free_port())
    where = parse_broker(broker.running.url)
    site.world.add("guest", "host-a")
    async with publishing(around.store, around.driver, "home", where, time.time) as status:
        ended = await _drive(replace(around, observe=status.observe))
    assert ended.outcome == Outcome.COMPLETED
    async with (
        broker,
        broker.running.reader() as reader,
        publishing(around.store, "cli-later-1", "home", where, time.time),
    ):
        events = await reader.until_topic("/event", len(around.store.events(ended.attempt)))
    assert [one.document["sequence"] for one in events] == list(range(1, len(events) + 1))


def _phases(messages: list[Received]) -> set[object]:
    return {one.document["phase"] for one in messages if one.topic.endswith("/event")}


async def _drive(around: Surroundings) -> Attempt:
    return await Drive(await admit(around, Order("guest", "host-b")), around).run()


async def test_without_a_broker_nobody_is_told_and_nothing_fails(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "store.db") as store:
        async with publishing(store, "cli-host-1", "home", None, time.time) as status:
            status.observe(entered(store))
