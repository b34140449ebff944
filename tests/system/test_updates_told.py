"""What everybody else sees of an update: readers of the broker, `viaduct watch`, its report, collectors of metrics."""

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest

from orchestrator.documents.schemas import schema_text
from tests.system.attempts import DEADLINE, machine, specification, works
from tests.system.command import Ended, finished, running, viaduct
from tests.system.orchestrated import orchestrated
from tests.system.processes import naming
from tests.system.site import Site
from tests.system.terminal import drawn
from tests.system.test_metrics_of_daemons import of, scraped
from tests.vm_migration.daemon.mqtt_brokers import Mosquitto, Received
from tests.vm_migration.daemon.test_published_messages import Description
from vm_migration.loopback.ports import free_ports

BEFORE = ("queued", "preflight", "beginning", "begun", "starting")
WAYS = {
    "transfer": [*BEFORE, "switching", "releasing", "resuming", "completed"],
    "exec": [*BEFORE, "resuming", "completed"],
}


@dataclass(frozen=True)
class Told:
    """A site of one host, which tells a broker and whoever collects metrics what it does."""

    site: Site
    broker: Mosquitto
    operator: Path
    metrics: str


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Told]:
    async with Mosquitto(tmp_path) as broker:
        with tempfile.TemporaryDirectory(prefix="viaduct-") as folder, site_of(Path(folder), broker) as made:
            yield made


@contextlib.contextmanager
def site_of(folder: Path, broker: Mosquitto) -> Iterator[Told]:
    site = Site(folder, {"host-a": "512MiB"}, broker.running.url)
    metrics = f"127.0.0.1:{next(iter(free_ports(1)))}"
    with site.configuration("host-a").open("a") as configuration:
        configuration.write(f'[metrics]\nsource = "{metrics}"\n')
    with contextlib.closing(site):
        site.run("host-a")
        with orchestrated(site) as made:
            yield Told(site, broker, made.operator, metrics)
        assert site.remains_at_last() == []


async def test_an_update_is_seen_phase_by_phase_by_whoever_looks(told: Told) -> None:
    site = told.site
    async with (
        told.broker.running.reader() as reader,
        site.agents() as agents,
        machine(site, agents, specification("busy")) as created,
    ):
        jobs = await works(site, "host-a", created.machine)
        attempts = {"transfer": await looked_at(told, created.machine)}
        assert await works(site, "host-a", created.machine, jobs) > jobs
        attempts["exec"] = updated(await viaduct(site, *update("exec"), config=told.operator))
        await reader.until(lambda messages: told_whole(messages, attempts["exec"], WAYS["exec"]))
        for mode, attempt in attempts.items():
            told_of(reader.messages, attempt, WAYS[mode])
        await reported(told, attempts["transfer"], "transfer")
        owners = [one.document for one in reader.messages if one.topic.endswith("machine/busy/owner")]
        shown = await agents.get_machine("host-a", created.machine)
        assert [(one["host"], one["epoch"]) for one in owners] == [("host-a", shown.epoch)]
        description = Description()
        for message in reader.messages:
            description.check(message)
        await counted(told)


def update(mode: str) -> tuple[str, ...]:
    return ("update", "busy", "--mode", mode, "--json")


def updated(said: Ended) -> str:
    """Return the attempt of an update that completed, and check what the command says of it."""
    assert said.exit_code == 0, said.err
    found = said.document["update"]
    assert isinstance(found, dict)
    assert found["outcome"] == "completed"
    assert found["downtime_ms"] > 0
    assert (found["guest"]["jobs_done"] > 0, found["guest"]["errors"]) == (True, 0)
    return str(found["attempt"])


async def looked_at(told: Told, name: str) -> str:
    """Update the machine, and look at that from everywhere while the new process starts; return the attempt."""
    async with running(told.site, *update("transfer"), config=told.operator) as command:
        async with standing_still(told.site, name):  # only the new process: the guest works
            await seen_by_who_watches(told, "starting")
            await seen_by_a_later_reader(told, "starting")
            during = await asyncio.to_thread(scraped, told.metrics)
            assert of(during, "viaduct_updates_in_phase", phase="starting") == 1
            assert of(during, "viaduct_migrations_in_phase", phase="begun") == 0
        return updated(await finished(command))


async def counted(told: Told) -> None:
    """Look at the agent's metrics afterwards: nothing has left the host."""
    after = await asyncio.to_thread(scraped, told.metrics)
    for mode in WAYS:
        assert of(after, "viaduct_updates_ended_total", mode=mode, outcome="completed") == 1
        assert of(after, "viaduct_update_downtime_seconds_count", mode=mode) == 1
    assert not [name for name, _ in after if name == "viaduct_migrations_ended_total"]


@contextlib.asynccontextmanager
async def standing_still(site: Site, name: str) -> AsyncIterator[None]:
    """Have the process that is to have the machine stand still from when it was started."""
    async with asyncio.timeout(DEADLINE):
        while not (found := starting(site, name)):  # noqa: ASYNC110 - another process, and /proc tells nobody
            await asyncio.sleep(0.001)  # /proc has no event for it
    os.kill(found[0], signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[0], signal.SIGCONT)


def starting(site: Site, name: str) -> list[int]:
    return [pid for pid, words in naming(site.folder, set()).items() if name in words and "--adopt" in words]


async def seen_by_who_watches(told: Told, phase: str) -> None:
    """Look at the whole site, as a program does and as a person does."""
    async with running(told.site, "watch", "--json", config=told.operator) as watching, asyncio.timeout(DEADLINE):
        assert watching.stdout is not None
        async for line in watching.stdout:
            document = json.loads(line)
            jsonschema.validate(document, json.loads(schema_text("viaduct.site.v1")))
            if [one["phase"] for one in document["in_flight"]] == [phase]:
                break
    text, exit_code = await asyncio.to_thread(drawn, told.site, ["busy", "on host-a", phase], told.operator)
    assert exit_code == 0, text


async def seen_by_a_later_reader(told: Told, phase: str) -> None:
    async with told.broker.running.reader() as later:
        (state,) = await later.until_topic("/state")
        assert (state.retain, state.document["phase"], state.document["outcome"]) == (True, phase, None)


def told_whole(messages: list[Received], attempt: str, way: list[str]) -> bool:
    """Tell whether all has come of an update that completed: its transitions, and its last state."""
    mine = [one for one in messages if attempt in one.topic]
    ended = any(one.topic.endswith("/state") and one.document["outcome"] for one in mine)
    return ended and sum(one.topic.endswith("/event") for one in mine) == len(way)


def told_of(messages: list[Received], attempt: str, way: list[str]) -> None:
    """Check what the broker was told of an update that completed, and in which order."""
    mine = [one for one in messages if attempt in one.topic]
    events = [one.document for one in mine if one.topic.endswith("/event")]
    assert [one["phase"] for one in events] == way
    assert [one["sequence"] for one in events] == list(range(1, len(way) + 1))
    states = [one.document for one in mine if one.topic.endswith("/state")]
    assert [one["phase"] for one in states] == [each for each in way if each in [one["phase"] for one in states]]
    assert (states[-1]["phase"], states[-1]["outcome"]) == ("completed", "completed")
    assert {(one["source"], one["destination"], one["machine"]) for one in states} == {("host-a", "host-a", "busy")}
    last = mine.index(next(one for one in mine if one.topic.endswith("/state") and one.document["outcome"]))
    assert not [one for one in mine[last:] if one.topic.endswith("/progress")], "told after the end"


async def reported(told: Told, attempt: str, mode: str) -> None:
    """Look an update up afterwards."""
    shown = await viaduct(told.site, "show", attempt, "--events", "--json", config=told.operator)
    jsonschema.validate(shown.document, json.loads(schema_text("viaduct.attempt.v1")))
    events = shown.document["events"]
    assert isinstance(events, list)
    assert [one["phase"] for one in events] == WAYS[mode]
    page = told.site.folder / f"{mode}.html"
    drawing = await viaduct(told.site, "report", attempt, "--html", str(page), config=told.operator)
    assert drawing.exit_code == 0, drawing.err
    assert f"on host-a, mode {mode}" in page.read_text()
