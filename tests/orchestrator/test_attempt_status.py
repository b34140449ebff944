import json
import time
from pathlib import Path

from orchestrator.attempt import Attempt, Outcome, Phase
from orchestrator.policy import MigrationPolicy
from orchestrator.status import KEEP_SECONDS, StoreOutbox, publishing
from orchestrator.store.store import Ownership, Store
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
    with Store(tmp_path / "store.db") as store:
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
    with Store(tmp_path / "store.db") as store:
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
    with Store(tmp_path / "store.db") as store:
        entered(store, driver="cli-dead-1")
        store.adopt_outbox("cli-host-2", 105.0, 10.0)
        assert store.pending("cli-host-2", 10) == ()
        store.adopt_outbox("cli-host-2", 200.0, 10.0)
        assert len(store.pending("cli-host-2", 10)) == 2


async def test_without_a_broker_nobody_is_told_and_nothing_fails(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        async with publishing(store, "cli-host-1", "home", None, time.time) as status:
            status.observe(entered(store))
