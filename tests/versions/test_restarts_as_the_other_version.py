"""Daemons that end in the middle of a migration, stopped or killed, and start again as the other version."""

from collections.abc import Callable

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

End = Callable[[Daemon], None]
Leg = tuple[str, str, bool, End]
"""From where to where, whether the daemon that ends comes back as the newer version, and how it ends."""
LEGS: tuple[Leg, ...] = (
    ("host-a", "host-b", True, Daemon.kill),
    ("host-b", "host-a", False, Daemon.kill),
    ("host-a", "host-b", False, Daemon.stop),
    ("host-b", "host-a", True, Daemon.stop),
)


async def test_a_source_agent_that_ends_in_pre_copy_aborts_as_the_other_version(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.become(older, ("host-a", "source"), ("host-b", "dest"))
    mixed_site.become(NEWER, ("host-b", "source"), ("host-a", "dest"))
    async with machine(mixed_site, agents, specification("left")) as created:
        for source, destination, becomes_newer, end in LEGS:
            attempt = await started(agents, created.machine, source, destination, endless())
            await attempt.in_the_middle()
            arriving = mixed_site.instance(destination, created.machine)
            end(mixed_site.source(source))
            mixed_site.become(NEWER if becomes_newer else older, (source, "source"))
            assert mixed_site.states(source, created.machine)[-1] == "ABORTED"
            assert ended(arriving.vmm.pid, DEADLINE)
            await goes_on_and_moves(mixed_site, agents, attempt)
    require_journals_read(mixed_site, created.machine, older)


async def test_a_destination_agent_that_ends_in_pre_copy_starts_empty_as_the_other_version(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.become(older, ("host-a", "source"), ("host-b", "dest"))
    mixed_site.become(NEWER, ("host-b", "source"), ("host-a", "dest"))
    async with machine(mixed_site, agents, specification("unheard")) as created:
        for source, destination, becomes_newer, end in LEGS:
            attempt = await started(agents, created.machine, source, destination, endless())
            await attempt.in_the_middle()
            arriving = mixed_site.instance(destination, created.machine)
            end(mixed_site.dest(destination))
            report = await attempt.end()
            assert (report.outcome, report.state) == ("failed", "ABORTED")
            mixed_site.become(NEWER if becomes_newer else older, (destination, "dest"))
            assert ended(arriving.vmm.pid, DEADLINE)
            await goes_on_and_moves(mixed_site, agents, attempt)
    require_journals_read(mixed_site, created.machine, older)


async def test_an_orchestrator_that_ends_in_pre_copy_goes_on_as_the_other_version(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.host_becomes(older, "host-a")
    mixed_site.host_becomes(NEWER, "host-b")
    slowly = ("--max-bandwidth", "32MiB/s", "--downtime-limit", "2s", "--json")
    async with machine(mixed_site, agents, specification("driven")) as created:
        for source, destination, becomes_newer, end in LEGS:
            before, after = (older, NEWER) if becomes_newer else (NEWER, older)
            mixed_site.become(before, ORCHESTRATOR)
            order = ("migrate", "driven", "--to", destination, *slowly)
            async with running(mixed_site, after, *order, who=ASKS) as command:
                await in_the_middle(agents, source, created.machine)
                end(mixed_site.orchestrator)
                if after is older:  # which does not know yet that a daemon's own rows are its own
                    mixed_site.age_claims()
                mixed_site.become(after, ORCHESTRATOR)
                moved = await finished(command)
            assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
            assert moved.document["pages_mismatched"] == 0
            await require_alone(mixed_site, created.machine, destination)
        jobs = await require_moved(mixed_site, older, "driven", "host-b", who=ASKS)
        await require_alone(mixed_site, created.machine, "host-b", jobs)


async def goes_on_and_moves(site: MixedSite, agents: Agents, attempt: Attempt) -> None:
    """Check that the machine of an attempt that was aborted works on at its source, and moves when asked again."""
    uuid = attempt.key.machine
    await require_alone(site, uuid, attempt.source)
    report = await migrated(agents, uuid, attempt.source, attempt.destination)
    require_whole(report)
    await require_alone(site, uuid, attempt.destination, report.guest.jobs_done)
