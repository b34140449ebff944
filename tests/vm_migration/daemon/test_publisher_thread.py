"""A publisher in a thread of its own, against a real broker."""

import asyncio
import time

from tests.vm_migration.daemon.mqtt_brokers import DEADLINE, Mosquitto, free_port
from tests.vm_migration.daemon.published_site import ATTEMPT, STATUS, TOPICS, Journal, event, progress, sequences, state
from vm_migration.daemon.broker_url import parse_broker
from vm_migration.daemon.publisher_thread import PublisherThread
from vm_migration.daemon.status_documents import state_message
from vm_migration.daemon.status_publisher import StatusPublisher


def threaded(url: str, journal: Journal) -> PublisherThread:
    return PublisherThread(StatusPublisher(parse_broker(url), status_topic=STATUS, identifier="busy", outbox=journal))


async def test_what_is_told_goes_out_while_the_event_loop_does_something_else(mosquitto: Mosquitto) -> None:
    journal = Journal()
    async with mosquitto.running.reader() as reader:
        async with asyncio.timeout(DEADLINE), threaded(mosquitto.running.url, journal) as status:
            await status.wait_connected()
            for number in range(1, 4):
                journal.add(event(number))
            status.wake()
            until = time.monotonic() + DEADLINE
            while journal.taken < 3 and time.monotonic() < until:
                time.sleep(0.01)  # noqa: ASYNC251 - the loop is kept from everything else meanwhile
            assert journal.taken == 3
            status.progress(ATTEMPT, progress(7))
            status.tell(TOPICS.state(ATTEMPT), lambda: state_message(TOPICS, state(4)))
            await reader.until_topic("/progress")
            assert sequences(await reader.until_topic("/state")) == [4]
        assert sequences(await reader.until_topic("/event", 3)) == [1, 2, 3]
        seen = await reader.until_topic("/main/status", 2)
    assert [message.document["status"] for message in seen] == ["online", "offline"]


async def test_it_ends_without_a_broker_and_what_comes_after_is_told_to_nobody() -> None:
    journal = Journal()
    async with asyncio.timeout(DEADLINE):
        async with threaded(f"mqtt://127.0.0.1:{free_port()}", journal) as status:
            journal.add(event(1))
            status.wake()
        status.wake()
    assert journal.taken == 0
