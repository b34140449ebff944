"""The status publisher against real brokers, read by mosquitto_sub."""

import asyncio
import io
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jsonschema
import yaml

from tests.vm_migration.daemon.mqtt_brokers import DEADLINE, Mosquitto, Received, RunningBroker, free_port
from vm_migration.daemon import status_documents as documents
from vm_migration.daemon.broker import local_broker
from vm_migration.daemon.broker_url import BrokerTls, parse_broker
from vm_migration.daemon.outbox import NOTHING, Entry, Outbox
from vm_migration.daemon.publication import Publication
from vm_migration.daemon.status_publisher import FAREWELL_SECONDS, StatusPublisher, retry_seconds
from vm_migration.daemon.status_topics import Topics
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.telemetry import logs

ROOT = Path(__file__).parents[3]
TOPICS = Topics("home")
ATTEMPT = "4b7c2f0e-0f5a-4c5e-9d0a-3a1c3a5b6c7d"
STATUS = TOPICS.orchestrator("main")
NOW = "2026-01-02T03:04:05.678Z"
RIGHT, WRONG = "swordfish", "sardine"
RATES = documents.Rates(dirty_bytes_per_s=1e8, wire_bytes_per_s=9.5e8)


@dataclass
class Journal:
    """An outbox as a store has it: entries with numbers, and what stands."""

    entries: list[Entry] = field(default_factory=list)
    taken: int = 0
    standing: dict[str, Publication] = field(default_factory=dict)

    def add(self, publication: Publication) -> None:
        if publication.retain:
            self.standing[publication.topic] = publication
        self.entries.append(Entry(len(self.entries) + 1, publication))

    def pending(self, limit: int) -> Sequence[Entry]:
        return self.entries[self.taken : self.taken + limit]

    def acknowledge(self, number: int) -> None:
        assert number == self.taken + 1, "acknowledged out of order"
        self.taken = number

    def retained(self) -> Sequence[Publication]:
        return list(self.standing.values())


def state(sequence: int, outcome: Literal["completed"] | None = None) -> documents.MigrationState:
    return documents.MigrationState(
        attempt=ATTEMPT,
        machine="qat-guest",
        source="host-a",
        destination="host-b",
        epoch=3,
        sequence=sequence,
        phase="pre-copy" if outcome is None else "completed",
        percent=40,
        rates=RATES,
        remaining_bytes=1 << 30,
        expected_downtime_ms=120.5,
        reason="the remaining work does not fit the downtime limit",
        outcome=outcome,
        error=None,
        updated=NOW,
    )


def event(sequence: int, error: documents.Problem | None = None) -> Publication:
    document = documents.MigrationEvent(
        attempt=ATTEMPT,
        machine="qat-guest",
        epoch=3,
        sequence=sequence,
        phase="pre-copy",
        reason="",
        outcome="failed" if error else None,
        error=error,
        at=NOW,
    )
    return documents.event_message(TOPICS, document)


def progress(percent: int) -> Publication:
    document = documents.MigrationProgress(
        attempt=ATTEMPT,
        machine="qat-guest",
        epoch=3,
        phase="pre-copy",
        percent=percent,
        round=2,
        rates=RATES,
        remaining_bytes=0,
        expected_downtime_ms=None,
        updated=NOW,
    )
    return documents.progress_message(TOPICS, document)


OWNER = documents.owner_message(TOPICS, documents.Owner(machine="qat-guest", host="host-b", epoch=3))


def publisher(url: str, outbox: Outbox = NOTHING, session: str = "s1", fraction: float = 0.0) -> StatusPublisher:
    return StatusPublisher(
        parse_broker(url),
        status_topic=STATUS,
        identifier="viaduct-test",
        outbox=outbox,
        session=session,
        fraction=lambda: fraction,
    )


async def connected(status: StatusPublisher) -> None:
    async with asyncio.timeout(DEADLINE):
        await status.wait_connected()


def sequences(messages: list[Received]) -> list[object]:
    return [message.document["sequence"] for message in messages]


async def test_birth_documents_and_farewell(broker: RunningBroker) -> None:
    journal = Journal()
    journal.add(OWNER)
    journal.add(documents.state_message(TOPICS, state(1)))
    async with broker.reader() as reader:
        async with publisher(broker.url, journal) as status:
            await connected(status)
            journal.add(event(1))
            status.wake()
            await reader.until_topic("/event")
        seen = await reader.until_topic("/main/status", 2)
    assert [message.document["status"] for message in seen] == ["online", "offline"]
    assert {message.document["session"] for message in seen} == {"s1"}
    assert journal.taken == 3
    assert reader.messages[0].topic == STATUS


async def test_retained_messages_stand_for_a_later_reader(broker: RunningBroker) -> None:
    journal = Journal()
    journal.add(OWNER)
    journal.add(documents.state_message(TOPICS, state(1)))
    async with publisher(broker.url, journal) as status:
        await connected(status)
        async with broker.reader() as reader:
            await reader.until(lambda messages: len(messages) == 3)
        assert all(message.retain for message in reader.messages)
        assert {message.topic for message in reader.messages} == {
            STATUS,
            TOPICS.owner("qat-guest"),
            TOPICS.state(ATTEMPT),
        }
    async with broker.reader() as reader:
        [presence] = await reader.until_topic("/main/status")
        assert presence.document["status"] == "offline"


async def test_real_messages_are_as_described(broker: RunningBroker) -> None:
    journal = Journal()
    journal.add(OWNER)
    journal.add(documents.state_message(TOPICS, state(1, "completed"), time.time() + 3600))
    journal.add(event(2, documents.Problem(code="timeout", message="Too long", hint="Try again")))
    async with broker.reader() as reader:
        async with publisher(broker.url, journal) as status:
            await connected(status)
            status.progress(ATTEMPT, progress(41))
            await reader.until_topic("/progress")
        async with StatusPublisher(
            parse_broker(broker.url), status_topic=TOPICS.agent("host-a", "dest"), identifier="agent"
        ) as agent:
            await connected(agent)
        await reader.until_topic("/dest/status", 2)
    description = Description()
    for message in reader.messages:
        description.check(message)
    assert description.used == set(description.channels)


class Description:
    """docs/asyncapi.yaml."""

    def __init__(self) -> None:
        self.document = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))
        self.channels = self.document["channels"]
        self.used: set[str] = set()

    def check(self, message: Received) -> None:
        [name] = [name for name, channel in self.channels.items() if self._matches(channel["address"], message.topic)]
        self.used.add(name)
        [kind] = self.channels[name]["messages"]
        schema = {"$ref": f"#/components/schemas/{kind}", "components": self.document["components"]}
        checker = jsonschema.Draft7Validator.FORMAT_CHECKER
        jsonschema.Draft7Validator(schema, format_checker=checker).validate(message.document)
        [binding] = [
            operation["bindings"]["mqtt"]
            for operation in self.document["operations"].values()
            if operation["channel"]["$ref"] == f"#/channels/{name}"
        ]
        if message.properties:  # from mosquitto; amqtt delivers with the subscription's QoS
            assert message.qos == binding["qos"]
            assert message.properties["content-type"] == self.document["defaultContentType"]
            assert message.properties["payload-format-indicator"] == 1
            user = message.properties["user-properties"]
            facts = {"schema", "attempt", "epoch"} & set(message.document)
            assert user == {fact: str(message.document[fact]) for fact in facts}

    @staticmethod
    def _matches(address: str, topic: str) -> bool:
        return re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(address)), topic) is not None


async def test_mosquitto_is_spoken_to_in_version_5(mosquitto: Mosquitto) -> None:
    async with mosquitto.running.reader() as reader, publisher(mosquitto.running.url) as status:
        await connected(status)
        [online] = await reader.until_topic("/main/status")
    assert online.properties["user-properties"] == {"schema": documents.PRESENCE}


async def test_events_arrive_in_order_and_once(broker: RunningBroker) -> None:
    journal = Journal()
    for number in range(1, 201):
        journal.add(event(number))
    async with broker.reader() as reader, publisher(broker.url, journal) as status:
        await connected(status)
        for number in range(201, 211):
            journal.add(event(number))
            status.wake()
        events = await reader.until_topic("/event", 210)
    assert sequences(events) == list(range(1, 211))


async def test_progress_comes_at_most_once_a_second_and_the_newest_wins(broker: RunningBroker) -> None:
    async with broker.reader() as reader, publisher(broker.url) as status:
        await connected(status)
        start = time.monotonic()
        status.progress(ATTEMPT, progress(1))
        await reader.until_topic("/progress", 1)
        for percent in range(2, 50):
            status.progress(ATTEMPT, progress(percent))
        seen = await reader.until_topic("/progress", 2)
        assert time.monotonic() - start >= 1.0
    assert [message.document["percent"] for message in seen] == [1, 49]
    assert not any(message.retain for message in seen)


async def test_a_dead_process_is_declared_offline_by_the_broker(broker: RunningBroker) -> None:
    program = (
        "import asyncio, sys\n"
        "from vm_migration.daemon.broker_url import parse_broker\n"
        "from vm_migration.daemon.status_publisher import StatusPublisher\n"
        "async def main():\n"
        "    async with StatusPublisher(parse_broker(sys.argv[1]), status_topic=sys.argv[2], identifier='dying',\n"
        "                               session='s9') as status:\n"
        "        await status.wait_connected()\n"
        "        print('up', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    async with broker.reader() as reader:
        process = await python("-c", program, broker.url, STATUS)
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            while await process.stdout.readline() != b"up\n":
                pass
        process.kill()
        await process.communicate()
        seen = await reader.until_topic("/main/status", 2)
    assert [message.document["status"] for message in seen] == ["online", "offline"]
    assert {message.document["session"] for message in seen} == {"s9"}


async def test_after_an_outage_nothing_is_missing_and_everything_stands_again(mosquitto: Mosquitto) -> None:
    journal = Journal()
    journal.add(OWNER)
    journal.add(documents.state_message(TOPICS, state(1)))
    journal.add(event(1))
    written = Written()
    async with publisher(mosquitto.running.url, journal) as status:
        await connected(status)
        assert journal.taken == 3
        await mosquitto.stop()
        await written.until("broker away")
        journal.add(event(2))
        journal.add(documents.state_message(TOPICS, state(2)))
        journal.add(event(3))
        status.wake()
        status.progress(ATTEMPT, progress(50))
        await mosquitto.start()
        async with mosquitto.running.reader() as reader:
            await connected(status)
            # The reader may have come before or after the publisher: states stand, so it has them either way.
            await reader.until(lambda messages: any(m.topic.endswith("/owner") for m in messages))
            states = await reader.until_topic("/state")
        assert sequences(states)[-1] == 2
        assert journal.taken == 6


class Written(io.StringIO):
    """The log, as it is written; told of what libraries log, too."""

    def __init__(self) -> None:
        super().__init__()
        self.grown = asyncio.Event()
        logs.configure("test", stream=self)

    def write(self, text: str) -> int:
        self.grown.set()
        return super().write(text)

    async def until(self, text: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while text not in self.getvalue():
                self.grown.clear()
                await self.grown.wait()


async def test_the_truth_has_the_last_word_over_an_older_pending_state(broker: RunningBroker) -> None:
    journal = Journal()
    journal.add(documents.state_message(TOPICS, state(1)))
    journal.add(documents.state_message(TOPICS, state(2)))
    async with broker.reader() as reader, publisher(broker.url, journal) as status:
        await connected(status)
        states = await reader.until_topic("/state", 3)
    assert sequences(states) == [1, 2, 2]


async def test_a_final_state_expires_where_the_broker_sees_to_it(mosquitto: Mosquitto) -> None:
    journal = Journal()
    journal.add(documents.state_message(TOPICS, state(3, "completed"), time.time() + 3600))
    async with publisher(mosquitto.running.url, journal) as status:
        await connected(status)
        async with mosquitto.running.reader() as reader:
            [message] = await reader.until_topic("/state", 1)
    assert message.retain
    assert 3500 < int(str(message.properties["message-expiry-interval"])) <= 3600


async def test_a_final_state_is_cleared_where_the_broker_does_not_expire_it() -> None:
    journal = Journal()
    journal.add(documents.state_message(TOPICS, state(3, "completed"), time.time() + 1.5))
    async with local_broker() as url:
        broker = RunningBroker("amqtt", "127.0.0.1", parse_broker(url).port)
        async with broker.reader() as reader, publisher(url, journal) as status:
            await connected(status)
            assert sequences(await reader.until_topic("/state", 1)) == [3]
            cleared = (await reader.until(lambda messages: any(not message.payload for message in messages)))[-1]
            assert cleared.topic == TOPICS.state(ATTEMPT)
            async with broker.reader() as later:
                await later.until_topic("/main/status")
                assert not [message for message in later.messages if message.topic.endswith("/state")]


async def test_a_state_long_past_its_time_is_cleared_at_connect(broker: RunningBroker) -> None:
    first = Journal()
    first.add(documents.state_message(TOPICS, state(3, "completed")))
    async with publisher(broker.url, first) as status:
        await connected(status)
    late = Journal(standing={"": documents.state_message(TOPICS, state(3, "completed"), time.time() - 5)})
    async with publisher(broker.url, late, session="s2") as status:
        await connected(status)
        async with broker.reader() as reader:
            await reader.until_topic("/main/status")
    assert [message.topic for message in reader.messages] == [STATUS]


async def test_a_dead_broker_changes_nothing_but_a_warning() -> None:
    written = Written()
    journal = Journal()
    start = time.monotonic()
    async with publisher(f"mqtt://127.0.0.1:{free_port()}", journal) as status:
        journal.add(event(1))
        status.wake()
        status.progress(ATTEMPT, progress(1))
        await written.until("broker away")
    assert time.monotonic() - start < FAREWELL_SECONDS
    assert journal.taken == 0
    entries = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(entry["event"], entry["level"]) for entry in entries] == [("broker away", "warning")]
    assert "refused" in entries[0]["reason"]


async def test_a_broker_that_is_silent_does_not_hold_up_the_exit() -> None:
    accepted, over = asyncio.Event(), asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        await reader.read()
        writer.close()
        over.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    start = time.monotonic()
    async with publisher(f"mqtt://127.0.0.1:{port}"), asyncio.timeout(DEADLINE):
        await accepted.wait()
    assert time.monotonic() - start < FAREWELL_SECONDS + 1
    server.close()
    async with asyncio.timeout(DEADLINE):
        await over.wait()


async def test_a_user_and_a_password_are_used(tmp_path: Path) -> None:
    users = tmp_path / "users"
    created = await asyncio.create_subprocess_exec("mosquitto_passwd", "-b", "-c", str(users), "anna", RIGHT)
    assert await created.wait() == 0
    server = Mosquitto(tmp_path, extra=f"allow_anonymous false\npassword_file {users}")
    await server.start()
    written = Written()
    try:
        right = parse_broker(server.running.url, user="anna", password=RIGHT)
        async with StatusPublisher(right, status_topic=STATUS, identifier="one") as status:
            await connected(status)
        wrong = parse_broker(server.running.url, user="anna", password=WRONG)
        async with StatusPublisher(wrong, status_topic=STATUS, identifier="two") as status:
            await written.until("broker away")
            assert not status.connected
    finally:
        await server.stop()
    assert WRONG not in written.getvalue() + repr(wrong)
    assert RIGHT not in repr(right)


async def test_a_broker_under_tls_with_our_certificates(tmp_path: Path) -> None:
    for name in ("pki", "other"):
        create_authority(tmp_path / name, "home")
    served = issue(tmp_path / "pki", Identity("home", Role.HOST, "broker"))
    mine = issue(tmp_path / "pki", Identity("home", Role.ORCHESTRATOR, "main"))
    files = f"cafile {served.ca}\ncertfile {served.certificate}\nkeyfile {served.key}"
    server = Mosquitto(tmp_path, extra=f"{files}\nrequire_certificate true\nallow_anonymous true")
    await server.start()
    url = f"mqtts://127.0.0.1:{server.port}"
    written = Written()
    try:
        right = parse_broker(url, tls=BrokerTls(mine.ca, mine.certificate, mine.key))
        async with StatusPublisher(right, status_topic=STATUS, identifier="one") as status:
            await connected(status)
        assert "V5" in written.getvalue()
        wrong = parse_broker(url, tls=BrokerTls(tmp_path / "other" / "ca.pem", mine.certificate, mine.key))
        async with StatusPublisher(wrong, status_topic=STATUS, identifier="two") as status:
            await written.until("broker away")
            assert not status.connected
    finally:
        await server.stop()


def test_retries_grow_to_half_a_minute_and_are_spread() -> None:
    assert [retry_seconds(failures, 1.0) for failures in (0, 1, 2, 3)] == [0.5, 1.0, 2.0, 4.0]
    assert retry_seconds(100, 1.0) == 30.0
    assert retry_seconds(100, 0.0) == 15.0


async def python(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
