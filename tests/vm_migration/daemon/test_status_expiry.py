"""The state of an attempt that ended is gone after its time, with every broker."""

import time

from tests.vm_migration.daemon.mqtt_brokers import Mosquitto, RunningBroker
from tests.vm_migration.daemon.published_site import (
    ATTEMPT,
    STATUS,
    TOPICS,
    Journal,
    connected,
    publisher,
    sequences,
    state,
)
from vm_migration.daemon import status_documents as documents
from vm_migration.daemon.broker import local_broker
from vm_migration.daemon.broker_url import parse_broker


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
    now = 1000.0
    journal = Journal()
    journal.add(documents.state_message(TOPICS, state(3, "completed"), now + 60))
    async with local_broker() as url:
        broker = RunningBroker("amqtt", "127.0.0.1", parse_broker(url).port)
        async with broker.reader() as reader, publisher(url, journal, clock=lambda: now) as status:
            await connected(status)
            assert sequences(await reader.until_topic("/state", 1)) == [3]
            now += 61
            status.wake()
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
