"""Hosts of two versions: machines move between them and back, whoever drives, and whoever started their processes."""

from orchestrator.agents import Agents
from tests.system.attempts import machine, specification, works
from tests.versions.mixed_site import MixedSite, require_alone, require_moved
from tests.versions.programs import NEWER, Version


async def test_machines_move_to_the_other_version_and_back_driven_by_either(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.a_is_older(older)
    for host, version in (("host-a", older), ("host-b", NEWER)):
        assert (await agents.describe_host(host, "source")).version == version.number
        assert (await agents.describe_host(host, "dest")).version == version.number
    async with machine(mixed_site, agents, specification("traveller")) as created:
        for driver in (NEWER, older):
            for host in ("host-b", "host-a"):
                jobs = await require_moved(mixed_site, driver, "traveller", host)
                await require_alone(mixed_site, created.machine, host, jobs)


async def test_agents_take_over_the_machines_that_the_other_version_started(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.a_is_older(older)
    async with machine(mixed_site, agents, specification("inherited")) as created:
        done = await works(mixed_site, "host-a", created.machine)
        mixed_site.host_becomes(NEWER, "host-a")  # agents newer than their machine's process
        done = await works(mixed_site, "host-a", created.machine, done)
        jobs = await require_moved(mixed_site, NEWER, "inherited", "host-b")
        await works(mixed_site, "host-b", created.machine, jobs)
        mixed_site.host_becomes(older, "host-b")  # and older than it
        jobs = await require_moved(mixed_site, NEWER, "inherited", "host-a")
        await require_alone(mixed_site, created.machine, "host-a", jobs)
