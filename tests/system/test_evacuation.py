"""Real machines leave a host together, come back, and stay where they are when somebody changes their mind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from orchestrator.store.sqlite import SqliteStore
from tests.system.attempts import DEADLINE, in_the_middle, machine, require_whole, specification, works
from tests.system.command import Ended, running, viaduct
from tests.system.orchestrated import orchestrated
from tests.system.site import Site

NAMES = ("first", "second", "third")
PATIENT = ("--downtime-limit", "2s", "--measure", "0s")
ENDLESS = ("--downtime-limit", "100ms", "--max-bandwidth", "4MiB/s", "--compression", "none", "--measure", "0s")


@pytest.fixture
def site(site: Site) -> Iterator[Site]:
    """The shared site, with a third host that takes one of these machines."""
    site.run("host-c")
    yield site
    site.stop("host-c")


@contextlib.asynccontextmanager
async def three(site: Site, agents: Agents) -> AsyncIterator[list[str]]:
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for name in NAMES:
            wanted = specification(name, guest_cpu_dirty_rate="2MiB/s", dma_rate="512KiB/s")
            made.append((await stack.enter_async_context(machine(site, agents, wanted))).machine)
        yield made


async def patiently(site: Site, *arguments: str, config: Path) -> Ended:
    """Run a command to its end that takes as long as several migrations."""
    async with running(site, *arguments, config=config) as process:
        async with asyncio.timeout(3 * DEADLINE):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())


def machines(said: Ended) -> list[dict[str, object]]:
    found = said.document["machines"]
    assert isinstance(found, list)
    return found


async def test_a_host_is_emptied_two_at_a_time_and_gets_its_machines_back(site: Site, agents: Agents) -> None:
    async with three(site, agents) as made:
        with orchestrated(site) as orchestrator:
            config = orchestrator.operator
            gone = await patiently(site, "evacuate", "host-a", "--parallel", "2", *PATIENT, "--json", config=config)
            assert (gone.exit_code, gone.document["outcome"]) == (0, "completed"), gone.err
            assert "host-a sends up to 2 machines at once for this; 1 otherwise" in gone.err
            for uuid, one in zip(made, machines(gone), strict=True):
                assert (one["machine"], one["source"], one["outcome"]) == (uuid, "host-a", "completed")
                await works(site, str(one["destination"]), uuid)
                with SqliteStore(orchestrator.store) as store:
                    report = store.get(str(one["attempt"])).report
                assert report is not None
                require_whole(report)
            assert site.machines_at("host-a") == []

            back = await patiently(site, "restore", "host-a", "--parallel", "2", *PATIENT, "--json", config=config)
            assert (back.exit_code, back.document["outcome"]) == (0, "completed"), back.err
            assert back.document["undoes"] == gone.document["evacuation"]
        for uuid in made:
            await works(site, "host-a", uuid)
    assert site.machines_at("host-b") == site.machines_at("host-c") == []


async def test_an_evacuation_outlives_its_orchestrator_and_is_cancelled_in_the_middle(
    site: Site, agents: Agents
) -> None:
    async with three(site, agents) as made:
        with orchestrated(site) as orchestrator:
            config = orchestrator.operator
            words = ("evacuate", "host-a", "--parallel", "2", *ENDLESS, "--detach", "--json")
            taken = await viaduct(site, *words, config=config)
            assert taken.exit_code == 0, taken.err
            evacuation = str(taken.document["evacuation"])
            for uuid in made[:2]:
                await in_the_middle(agents, "host-a", uuid)
            orchestrator.daemon.kill()
            orchestrator.daemon.start()
            shown = await viaduct(site, "show", evacuation[:9], "--json", config=config)
            moving = [one["attempts"] for one in machines(shown)][:2]  # the third may be made ready by now, or again
            assert all(moving)
            cancelled = await viaduct(site, "cancel", evacuation, config=config)
            assert cancelled.exit_code == 0, cancelled.err
            ended = await viaduct(site, "watch", evacuation, "--json", config=config)
            assert (ended.exit_code, ended.document["outcome"]) == (5, "cancelled"), ended.err
            assert [one["outcome"] for one in machines(ended)] == ["cancelled"] * 3
            assert [one["attempts"] for one in machines(ended)][:2] == moving
        for uuid in made:
            await works(site, "host-a", uuid)
