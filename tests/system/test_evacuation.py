"""Real machines leave a host together, come back, and stay where they are when somebody changes their mind."""

from collections.abc import Iterator, Sequence

import pytest

from orchestrator.agents import Agents
from orchestrator.store.sqlite import SqliteStore
from tests.system.attempts import PATIENT, require_whole, works
from tests.system.command import Ended, viaduct
from tests.system.leaving import ENDLESS, in_order, machines, patiently, three
from tests.system.orchestrated import orchestrated
from tests.system.site import Site


@pytest.fixture
def site(site: Site) -> Iterator[Site]:
    """The shared site, with a third host that takes one of these machines."""
    site.run("host-c")
    yield site
    site.stop("host-c")


def attempts_of(said: Ended, of: Sequence[str]) -> dict[object, object]:
    return {one["machine"]: one["attempts"] for one in machines(said) if one["machine"] in of}


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
            moving = (await in_order(agents, made))[:2]  # the third may be made ready by now, or again
            orchestrator.daemon.kill()
            orchestrator.daemon.start()
            shown = await viaduct(site, "show", evacuation[:9], "--json", config=config)
            before = attempts_of(shown, moving)
            assert all(before.values())
            cancelled = await viaduct(site, "cancel", evacuation, config=config)
            assert cancelled.exit_code == 0, cancelled.err
            ended = await viaduct(site, "watch", evacuation, "--json", config=config)
            assert (ended.exit_code, ended.document["outcome"]) == (5, "cancelled"), ended.err
            assert [one["outcome"] for one in machines(ended)] == ["cancelled"] * 3
            assert attempts_of(ended, moving) == before
        for uuid in made:
            await works(site, "host-a", uuid)
