"""Daemons that end in the middle of a migration, stopped or killed, and start again as the other version."""

from collections.abc import Callable

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import (
    DEADLINE,
    Attempt,
    endless,
    in_the_middle,
    machine,
    migrated,
    require_whole,
    specification,
    started,
)
from tests.system.command import finished
from tests.system.daemons import Daemon
from tests.system.processes import ended
from tests.versions.mixed_site import ASKS, ORCHESTRATOR, MixedSite, require_alone, require_moved, running
from tests.versions.programs import NEWER, Version
from tests.versions.written import require_journals_read

pytestmark = pytest.mark.timeout(300)  # many processes start in each of them

End = Callable[[Daemon], None]
LEGS: tuple[tuple[str, str, End], ...] = (
    ("host-a", "host-b", Daemon.kill),
    ("host-b", "host-a", Daemon.kill),
    ("host-a", "host-b", Daemon.stop),
    ("host-b", "host-a", Daemon.stop),
)
"""From where to where, and how the daemon ends; it comes back as the version that it was not."""


async def test_a_source_agent_that_ends_in_pre_copy_aborts_as_the_other_version(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.a_is_older(older)
    async with machine(mixed_site, agents, specification("left")) as created:
        for source, destination, end in LEGS:
            attempt = await started(agents, created.machine, source, destination, endless())
            await attempt.in_the_middle()
            arriving = mixed_site.instance(destination, created.machine)
            end(mixed_site.source(source))
            become_the_other(mixed_site, older, source, "source")
            assert mixed_site.states(source, created.machine)[-1] == "ABORTED"
            assert ended(arriving.vmm.pid, DEADLINE)
            await goes_on_and_moves(mixed_site, agents, attempt)
    require_journals_read(mixed_site, created.machine, older)


async def test_a_destination_agent_that_ends_in_pre_copy_starts_empty_as_the_other_version(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.a_is_older(older)
    async with machine(mixed_site, agents, specification("unheard")) as created:
        for source, destination, end in LEGS:
            attempt = await started(agents, created.machine, source, destination, endless())
            await attempt.in_the_middle()
            arriving = mixed_site.instance(destination, created.machine)
            end(mixed_site.dest(destination))
            report = await attempt.end()
            assert (report.outcome, report.state) == ("failed", "ABORTED")
            become_the_other(mixed_site, older, destination, "dest")
            assert ended(arriving.vmm.pid, DEADLINE)
            await goes_on_and_moves(mixed_site, agents, attempt)
    require_journals_read(mixed_site, created.machine, older)


async def test_an_orchestrator_that_ends_in_pre_copy_goes_on_as_the_other_version(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.a_is_older(older)
    mixed_site.become(older, ORCHESTRATOR)
    slowly = ("--max-bandwidth", "32MiB/s", "--compression", "none", "--downtime-limit", "2s", "--json")
    async with machine(mixed_site, agents, specification("driven")) as created:
        for source, destination, end in LEGS:
            client = older if mixed_site.versions[ORCHESTRATOR] == NEWER else NEWER
            order = ("migrate", "driven", "--to", destination, *slowly)
            async with running(mixed_site, client, *order, who=ASKS) as command:
                await in_the_middle(agents, source, created.machine)
                end(mixed_site.orchestrator)
                if client is older:  # so is the daemon that comes: it does not know a daemon's own rows by their name
                    mixed_site.age_claims()
                become_the_other(mixed_site, older, *ORCHESTRATOR)
                moved = await finished(command)
            assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
            assert moved.document["pages_mismatched"] == 0
            await require_alone(mixed_site, created.machine, destination)
        jobs = await require_moved(mixed_site, older, "driven", "host-b", who=ASKS)
        await require_alone(mixed_site, created.machine, "host-b", jobs)


def become_the_other(site: MixedSite, older: Version, host: str, side: str) -> None:
    """Start a daemon that has ended as the version that it was not."""
    site.become(older if site.versions[host, side] == NEWER else NEWER, (host, side))


async def goes_on_and_moves(site: MixedSite, agents: Agents, attempt: Attempt) -> None:
    """Check that the machine of an attempt that was aborted works on at its source, and moves when asked again."""
    uuid = attempt.key.machine
    await require_alone(site, uuid, attempt.source)
    report = await migrated(agents, uuid, attempt.source, attempt.destination)
    require_whole(report)
    await require_alone(site, uuid, attempt.destination, report.guest.jobs_done)
