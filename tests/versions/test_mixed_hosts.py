"""Hosts of two versions: machines move between them and back, whoever drives, and whoever started their processes."""

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import machine, specification, works
from tests.versions.mixed_site import MixedSite, require_alone, require_moved
from tests.versions.programs import NEWER, Version


@pytest.mark.parametrize("first_is_older", [True, False])
async def test_a_machine_moves_to_the_other_version_and_back_driven_by_either(
    mixed_site: MixedSite, agents: Agents, older: Version, *, first_is_older: bool
) -> None:
    first, other = (older, NEWER) if first_is_older else (NEWER, older)
    mixed_site.host_becomes(first, "host-a")
    mixed_site.host_becomes(other, "host-b")
    for host, version in (("host-a", first), ("host-b", other)):
        assert (await agents.describe_host(host, "source")).version == version.number
        assert (await agents.describe_host(host, "dest")).version == version.number
    async with machine(mixed_site, agents, specification("traveller")) as created:
        await works(mixed_site, "host-a", created.machine)
        jobs = await require_moved(mixed_site, NEWER, "traveller", "host-b")
        await works(mixed_site, "host-b", created.machine, jobs)
        jobs = await require_moved(mixed_site, older, "traveller", "host-a")
        await require_alone(mixed_site, created.machine, "host-a", jobs)


async def test_agents_take_over_the_machines_that_the_other_version_started(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.host_becomes(older, "host-a")
    mixed_site.host_becomes(NEWER, "host-b")
    async with machine(mixed_site, agents, specification("inherited")) as created:
        done = await works(mixed_site, "host-a", created.machine)
        mixed_site.host_becomes(NEWER, "host-a")  # agents newer than their machine's process
        done = await works(mixed_site, "host-a", created.machine, done)
        jobs = await require_moved(mixed_site, NEWER, "inherited", "host-b")
        await works(mixed_site, "host-b", created.machine, jobs)
        mixed_site.host_becomes(older, "host-b")  # and older than it
        jobs = await require_moved(mixed_site, NEWER, "inherited", "host-a")
        await require_alone(mixed_site, created.machine, "host-a", jobs)
