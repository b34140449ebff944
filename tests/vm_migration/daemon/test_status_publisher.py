"""The status publisher against real brokers, read by mosquitto_sub."""

import time
import uuid

from tests.vm_migration.daemon.mqtt_brokers import Mosquitto, RunningBroker
from tests.vm_migration.daemon.published_site import (
    ATTEMPT,
    OWNER,
    STATUS,
    TOPICS,
    Journal,
    connected,
    event,
    progress,
    publisher,
    sequences,
    state,
)
from vm_migration.daemon import status_documents as documents
from vm_migration.daemon.publication import Publication


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
    assert journal.acknowledged < 20  # many at a time


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


async def test_progress_that_waits_is_not_told_after_its_end(broker: RunningBroker) -> None:
    other = str(uuid.UUID(int=1))
    async with broker.reader() as reader, publisher(broker.url) as status:
        await connected(status)
        for percent in (1, 2):
            status.progress(ATTEMPT, progress(percent))
            status.progress(other, progress(percent, other))
            if percent == 2:  # both wait for their second
                status.progress(ATTEMPT, None)
            await reader.until_topic(f"{other}/progress", percent)
    assert [message.document["percent"] for message in reader.messages if ATTEMPT in message.topic] == [1]


async def test_the_truth_has_the_last_word_over_an_older_pending_state(broker: RunningBroker) -> None:
    journal = Journal()
    journal.add(documents.state_message(TOPICS, state(1)))
    journal.add(documents.state_message(TOPICS, state(2)))
    async with broker.reader() as reader, publisher(broker.url, journal) as status:
        await connected(status)
        states = await reader.until_topic("/state", 3)
    assert sequences(states) == [1, 2, 2]


async def test_a_topic_that_changed_is_told_as_it_stands_when_its_turn_comes(broker: RunningBroker) -> None:
    standing = documents.owner_message(TOPICS, documents.Owner(machine="other", host="host-a", epoch=1))
    asked: list[str] = []

    def current() -> Publication:
        asked.append(standing.topic)
        return standing

    async with broker.reader() as reader, publisher(broker.url) as status:
        status.tell(standing.topic, current)  # nobody is there yet, who would be told all of them first
        await connected(status)
        assert asked == []
        status.tell(standing.topic, current)
        status.tell(standing.topic, current)
        [told] = await reader.until_topic("machine/other/owner")
        status.tell(OWNER.topic, lambda: None)
        status.tell(standing.topic, current)
        await reader.until_topic("machine/other/owner", 2)
    assert told.document["host"] == "host-a"
    assert len(asked) == 2
    assert [one.topic for one in reader.messages if one.topic == OWNER.topic] == []
