"""A broker that is away or silent, and a publisher that dies: nobody waits, nothing is missing afterwards."""

import asyncio
import json
import sys
import time

from tests.vm_migration.daemon.mqtt_brokers import DEADLINE, Mosquitto, RunningBroker, free_port
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
from tests.vm_migration.daemon.written_log import Written
from vm_migration.daemon import status_documents as documents
from vm_migration.daemon.status_publisher import FAREWELL_SECONDS, retry_seconds


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
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, broker.url, STATUS),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
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


def test_retries_grow_to_half_a_minute_and_are_spread() -> None:
    assert [retry_seconds(failures, 1.0) for failures in (0, 1, 2, 3)] == [0.5, 1.0, 2.0, 4.0]
    assert retry_seconds(100, 1.0) == 30.0
    assert retry_seconds(100, 0.0) == 15.0
