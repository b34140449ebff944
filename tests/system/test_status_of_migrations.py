"""What a reader of the broker sees of migrations that a command drives, with mosquitto and mosquitto_sub."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.system.attempts import machine, specification, works
from tests.system.command import finished, running, viaduct
from tests.system.leaving import ENDLESS
from tests.system.site import Site
from tests.vm_migration.daemon.mqtt_brokers import Mosquitto, Reader, Received

CALM = specification("told-of", guest_cpu_dirty_rate="4MiB/s", dma_rate="2MiB/s")
PATIENT = ("--downtime-limit", "2s", "--json", "--measure", "0s")


@pytest.fixture
async def reader(broker: Mosquitto) -> AsyncIterator[Reader]:
    async with broker.running.reader() as reader:
        yield reader


@pytest.fixture
async def told_site(broker: Mosquitto) -> AsyncIterator[Site]:
    """A site of its own, whose agents and commands tell the broker what they do."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder:
        site = Site(Path(folder), {"host-a": "256MiB", "host-b": "256MiB"}, broker.running.url)
        with contextlib.closing(site):
            site.run("host-a", "host-b")
            yield site


async def test_a_command_tells_the_broker_what_it_does_and_goes_on_without_it(
    told_site: Site, broker: Mosquitto, reader: Reader
) -> None:
    async with told_site.agents() as agents, machine(told_site, agents, CALM) as created:
        await works(told_site, "host-a", created.machine)
        moved = await viaduct(told_site, "migrate", "told-of", "--to", "host-b", *PATIENT)
        assert (moved.exit_code, moved.document["outcome"], moved.document["pages_mismatched"]) == (0, "completed", 0)
        (owner,) = await reader.until_topic("machine/told-of/owner")
        assert (owner.document["host"], owner.document["epoch"], owner.retain) == ("host-b", 2, False)
        await reader.until(lambda messages: bool(_events(messages, "completed")))
        events = _events(reader.messages)
        assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
        assert {event["attempt"] for event in events} == {moved.document["attempt"]}
        states = [one.document for one in reader.messages if one.topic.endswith("/state")]
        assert (states[-1]["phase"], states[-1]["outcome"]) == ("completed", "completed")
        agents_seen = {one.topic.partition("agent/")[2] for one in reader.messages if "/agent/" in one.topic}
        assert agents_seen == {f"{host}/{side}/status" for host in told_site.budgets for side in ("source", "dest")}

        before = len(reader.messages)
        async with running(told_site, "migrate", "told-of", "--to", "host-a", *ENDLESS, "--json") as back:
            await reader.until(lambda messages: bool(_phases(messages[before:]) & {"pre-copy"}))
            assert broker.process is not None
            broker.process.kill()
            await broker.process.communicate()
            broker.process = None
            assert told_site.states("host-b", created.machine)[-1] == "OUTGOING"
            attempt = (await agents.get_machine("host-b", created.machine)).attempt
            tuned = await viaduct(told_site, "tune", attempt, "--downtime-limit", "4s", "--max-bandwidth", "1GiB/s")
            assert tuned.exit_code == 0, tuned.err
            returned = await finished(back)
        assert (returned.exit_code, returned.document["outcome"]) == (0, "completed"), returned.err
        assert "broker" in returned.err
        await works(told_site, "host-a", created.machine)


def _events(messages: list[Received], phase: str = "") -> list[dict[str, object]]:
    events = [one.document for one in messages if one.topic.endswith("/event")]
    return [event for event in events if phase in ("", event["phase"])]


def _phases(messages: list[Received]) -> set[object]:
    return {one.document["phase"] for one in messages if one.topic.endswith("/state")}
