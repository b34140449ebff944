"""`evacuate`, `restore` and maintenance as somebody types them, with a daemon and without."""

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from orchestrator.api import NAME, OrchestratorService
from orchestrator.driving import driving
from orchestrator.evacuation.kept import KeptEvacuations
from orchestrator.evacuation.plan import Evacuation, Kind, Move
from orchestrator.leading import Leading
from orchestrator.store.sqlite import SqliteStore
from orchestrator.surroundings import Surroundings
from tests.orchestrator.conftest import RecordedHooks
from tests.orchestrator.fake_agents import FakeSite, fake_site
from tests.orchestrator.stores import new
from tests.orchestrator.test_viaduct_command import Json, Run, Said, Value, config, store, viaduct
from vm_migration.api.v1 import types_pb2
from vm_migration.api.v1.orchestrator_pb2_grpc import add_OrchestratorServicer_to_server
from vm_migration.daemon.host_facts import VERSION
from vm_migration.link.server import AgentServer, Service
from vm_migration.telemetry import logs

__all__ = ["config", "store", "viaduct"]  # fixtures
NAMES = ("one", "three", "two")


@pytest.fixture
async def site() -> AsyncIterator[FakeSite]:
    async with fake_site("host-a", "host-b", "host-c") as running:
        yield running


@pytest.fixture(autouse=True)
def log() -> None:
    """What is logged stays out of the streams of the command, as in a process of its own."""
    logs.configure("test", stream=io.StringIO())


def turned_to(config: Path, address: str) -> None:
    config.write_text(config.read_text().replace("[site]", f'[site]\norchestrator = "{address}"'))


@pytest.fixture(params=["alone", "daemon"])
async def driven(request: pytest.FixtureRequest, site: FakeSite, config: Path, store: Path) -> AsyncIterator[str]:
    """Who drives what the commands ask for."""
    if request.param == "alone":
        yield "alone"
        return
    async with contextlib.AsyncExitStack() as stack:
        opened = stack.enter_context(SqliteStore(store))
        agents = await stack.enter_async_context(Agents(site.addresses, None))
        around = Surroundings(opened, agents, RecordedHooks(), "orchestrator", time.time)
        at_work = await stack.enter_async_context(driving(around, sole=True))
        register = partial(add_OrchestratorServicer_to_server, OrchestratorService(Leading(at_work), opened))
        server = AgentServer("127.0.0.1:0", None, [Service(NAME, register)], grace=0.0)
        await stack.enter_async_context(server)
        turned_to(config, server.address)
        yield "daemon"


def machines(said: Said) -> list[Json]:
    found = said.document["machines"]
    assert isinstance(found, list)
    return [one for one in found if isinstance(one, dict)]


def column(said: Said, key: str) -> list[Value]:
    return [one[key] for one in machines(said)]


async def test_a_host_is_emptied_and_filled_again(viaduct: Run, site: FakeSite, driven: str) -> None:
    for name in NAMES:
        site.world.add(name, "host-a")
    gone = await viaduct("evacuate", "host-a", "--parallel", "2", "--json")
    assert (gone.exit_code, gone.document["outcome"], gone.document["percent"]) == (0, "completed", 100)
    assert (column(gone, "name"), column(gone, "outcome")) == (list(NAMES), ["completed"] * 3)
    raised = gone.document["raised"]
    assert isinstance(raised, list)
    assert {"host": "host-a", "direction": "out", "slots": 2, "usual": 1} in raised
    identifier = str(gone.document["evacuation"])
    assert f"{identifier}: 3 machines are to leave host-a; to cancel: viaduct cancel {identifier}" in gone.err
    assert "host-a sends up to 2 machines at once for this; 1 otherwise" in gone.err
    assert (await viaduct("host", "maintenance", "--json")).document["hosts"] == ["host-a"]

    shown = await viaduct("show", identifier[:11], "--json")
    assert shown.document == gone.document
    watched = await viaduct("watch", identifier)
    assert (watched.exit_code, "3 of 3 moved" in watched.out) == (0, True)
    assert "viaduct restore host-a" in watched.out
    (await viaduct("cancel", identifier)).complains(3, "has ended: completed")
    listed = await viaduct("list", "--all", "--json")
    attempts, evacuations = listed.document["attempts"], listed.document["evacuations"]
    assert isinstance(attempts, list)
    assert isinstance(evacuations, list)
    assert [len(attempts), len(evacuations)] == [3, 1]  # ordinary attempts
    assert "evacuate host-a" in (await viaduct("list", "--all")).out

    back = await viaduct("restore", "host-a", "--json")
    assert (back.exit_code, back.document["undoes"], column(back, "destination")) == (0, identifier, ["host-a"] * 3)
    assert {one.host for one in site.world.machines.values()} == {"host-a"}
    assert (await viaduct("host", "maintenance", "--json")).document["hosts"] == []
    assert driven in {"alone", "daemon"}


async def test_an_evacuation_is_cancelled_from_elsewhere(
    viaduct: Run, site: FakeSite, store: Path, driven: str
) -> None:
    for name in NAMES:
        site.world.add(name, "host-a")
    site.world.script.hold_at = "pre-copy"
    driving_it = asyncio.create_task(viaduct("evacuate", "host-a", "--parallel", "2"))
    await site.world.script.reached.wait()
    with SqliteStore(store) as opened:
        (entry,) = opened.entries.below("evacuation/")
    identifier = entry.key.removeprefix("evacuation/")
    await viaduct("cancel", identifier, "--json")
    await driving_it
    shown = await viaduct("show", identifier, "--json")
    assert (shown.exit_code, shown.document["outcome"]) == (0, "cancelled")
    assert column(shown, "outcome") == ["cancelled"] * 3
    again = await viaduct("watch", identifier)
    assert (again.exit_code, "error: Evacuation of host-a: 0 of 3 moved, 3 cancelled\n" in again.err) == (5, True)
    assert {one.host for one in site.world.machines.values()} == {"host-a"}
    assert driven in {"alone", "daemon"}


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["evacuate"], 2, "HOST"),
        (["evacuate", "host-z"], 2, "host-z"),
        (["evacuate", "host-a", "--to", "host-a"], 2, "host-a"),
        (["evacuate", "host-a", "--to", "host-y"], 2, "host-y"),
        (["evacuate", "host-a", "--parallel", "0"], 2, "--parallel"),
        (["evacuate", "host-a", "--parallel", "many"], 2, "many"),
        (["evacuate", "host-a", "--downtime-limit", "soon"], 2, "soon"),
        (["restore"], 2, "HOST"),
        (["restore", "host-a"], 3, "No evacuation of host-a is known"),
        (["show", "ev-1234"], 2, "ev-1234"),
        (["watch", "ev-1234"], 2, "ev-1234"),
        (["cancel", "ev-1234"], 2, "ev-1234"),
        (["host", "maintenance", "host-z", "on"], 2, "host-z"),
        (["host", "maintenance", "host-a"], 2, "on or off"),
        (["host", "maintenance", "host-a", "maybe"], 2, "maybe"),
    ],
)
async def test_what_cannot_be_done_is_two_lines(  # noqa: PLR0917 - a table
    viaduct: Run, site: FakeSite, driven: str, words: list[str], exit_code: int, said: str
) -> None:
    site.world.add("one", "host-a")
    (await viaduct(*words)).complains(exit_code, said)
    as_json = await viaduct(*words, "--json")
    assert (as_json.document["schema"], as_json.document["exit_code"]) == ("viaduct.error.v1", exit_code)
    assert (site.world.calls, driven in {"alone", "daemon"}) == ([], True)
    assert (await viaduct("host", "maintenance", "--json")).document["hosts"] == []


async def test_what_a_killed_command_left_is_watched_by_nobody_and_cancelled_by_anybody(
    viaduct: Run, site: FakeSite, store: Path
) -> None:
    machine = site.world.add("one", "host-a")
    left = Evacuation("ev-1", Kind.EVACUATE, "host-a", (Move(machine, "one", 1),), 1.0, 1.0, driver="cli-gone")
    with SqliteStore(store) as opened:
        KeptEvacuations(opened.entries).enter(left)
    (await viaduct("evacuate", "host-a")).complains(3, "ev-1 of host-a is open")
    watched = await viaduct("watch", "ev-1")
    assert (watched.exit_code, "Nobody drives evacuation ev-1" in watched.err) == (3, True)
    cancelled = await viaduct("cancel", "ev-1", "--json")
    assert (cancelled.exit_code, cancelled.document["outcome"]) == (0, "cancelled")
    assert (await viaduct("evacuate", "host-a")).exit_code == 0


async def test_nobody_would_drive_what_is_detached_without_a_daemon(viaduct: Run, site: FakeSite) -> None:
    site.world.add("one", "host-a")
    (await viaduct("evacuate", "host-a", "--detach")).complains(2, "viaduct orchestrator")


async def test_the_worst_machine_says_how_it_ended(viaduct: Run, site: FakeSite, driven: str) -> None:
    for name in NAMES:
        site.world.add(name, "host-a")
    site.world.script.failures = 1
    said = await viaduct("evacuate", "host-a", "--retries", "0")
    assert said.exit_code == 4
    assert "error: Evacuation of host-a: 2 of 3 moved, 1 failed: one: It went wrong" in said.err
    assert "fix: See every machine: viaduct show ev-" in said.err
    assert driven in {"alone", "daemon"}


@pytest.mark.usefixtures("driven")
async def test_what_is_on_its_way_and_has_not_begun_counts_in_what_is_explained(
    viaduct: Run, site: FakeSite, store: Path
) -> None:
    site.world.add("guest", "host-a")
    load = types_pb2.HostLoad(machines=3, memory_free_bytes=33 << 30)
    for host in ("host-b", "host-c"):
        site.world.script.facts[host] = types_pb2.HostFacts(host=host, version=VERSION, load=load)
    preflight = ("preflight", "guest", "--to", "any", "--measure", "0s", "--json")
    assert chosen(await viaduct(*preflight)) == "host-b", "of two that are alike the first by name"
    with SqliteStore(store) as opened:
        opened.open_attempt(new(destination="host-b", driver="somebody", heartbeat=time.time()))
    assert chosen(await viaduct(*preflight)) == "host-c"


def chosen(said: Said) -> Value:
    candidates = said.document["candidates"]
    assert isinstance(candidates, list)
    assert isinstance(candidates[0], dict)
    return candidates[0]["host"]
