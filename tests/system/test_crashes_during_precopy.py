"""Processes that are killed while pages are on their way: the machine goes on, or is known to be lost."""

import os
import signal

from orchestrator.agents import Agents
from tests.system.attempts import (
    DEADLINE,
    ENDLESS,
    endless,
    in_the_middle,
    jobs_done,
    machine,
    migrated,
    require_whole,
    specification,
    started,
    works,
)
from tests.system.command import finished, running
from tests.system.processes import ended
from tests.system.site import Site


async def test_a_killed_source_agent_leaves_the_machine_running_and_aborts_when_it_is_back(
    site: Site, agents: Agents
) -> None:
    async with machine(site, agents, specification("orphaned")) as created:
        uuid = created.machine
        attempt = await started(agents, uuid, "host-a", "host-b", endless())
        await attempt.in_the_middle()
        stale = site.instance("host-b", uuid)
        site.source("host-a").kill()
        jobs = await works(site, "host-a", uuid, await jobs_done(site, "host-a", uuid))
        assert site.states("host-a", uuid)[-1] == "OUTGOING"

        site.source("host-a").start()
        assert site.states("host-a", uuid)[-1] == "ABORTED"
        await works(site, "host-a", uuid, jobs)
        seen = await agents.get_attempt("host-a", attempt.key)
        assert (seen.outcome, seen.error.code, seen.state) == ("failed", "agent-restarted", "ABORTED")

        # What had arrived of the first attempt is given up: its source has proved the end.
        assert ended(stale.vmm.pid, DEADLINE)
        assert ended(stale.host.pid, DEADLINE)

        report = await migrated(agents, uuid, "host-a", "host-b")
        require_whole(report)
        assert report.key.epoch == attempt.key.epoch + 1
        await works(site, "host-b", uuid, report.guest.jobs_done)
        assert site.states("host-b", uuid) == ["PREPARED", "DISCARDED", "PREPARED", "READY", "ACTIVATING", "ACTIVE"]


async def test_a_killed_destination_agent_aborts_and_a_second_attempt_completes(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("unheard")) as created:
        uuid = created.machine
        attempt = await started(agents, uuid, "host-a", "host-b", endless())
        await attempt.in_the_middle()
        stale = site.instance("host-b", uuid)
        site.dest("host-b").kill()
        report = await attempt.end()
        assert (report.outcome, report.state) == ("failed", "ABORTED")
        await works(site, "host-a", uuid, await jobs_done(site, "host-a", uuid))

        site.dest("host-b").start()
        assert ended(stale.vmm.pid, 0)
        assert ended(stale.host.pid, 0)
        assert site.machines_at("host-b") == []
        report = await migrated(agents, uuid, "host-a", "host-b")
        require_whole(report)
        await works(site, "host-b", uuid, report.guest.jobs_done)


async def test_a_destination_whose_machine_process_dies_aborts(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("stillborn")) as created:
        uuid = created.machine
        attempt = await started(agents, uuid, "host-a", "host-b", endless())
        await attempt.in_the_middle()
        arriving = site.instance("host-b", uuid)
        os.kill(arriving.vmm.pid, signal.SIGKILL)
        report = await attempt.end()
        assert (report.outcome, report.state) == ("failed", "ABORTED")
        # It was noticed while the guest ran: nothing was ever stopped for it.
        assert "STOPPED" not in site.states("host-a", uuid)
        await works(site, "host-a", uuid, await jobs_done(site, "host-a", uuid))
        assert ended(arriving.host.pid, DEADLINE)


async def test_a_source_whose_machine_process_dies_is_lost_and_nothing_is_left(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("mourned")) as created:
        uuid = created.machine
        async with running(site, "migrate", "mourned", "--to", "host-b", *ENDLESS, "--json") as command:
            await in_the_middle(agents, "host-a", uuid)
            own, arriving = site.instance("host-a", uuid), site.instance("host-b", uuid)
            os.kill(own.vmm.pid, signal.SIGKILL)
            lost = await finished(command)
        assert (lost.exit_code, lost.document["outcome"]) == (7, "lost"), lost.err
        assert ended(own.host.pid, DEADLINE)
        assert ended(arriving.vmm.pid, DEADLINE)
        assert ended(arriving.host.pid, DEADLINE)
        assert (site.states("host-a", uuid)[-1], site.states("host-b", uuid)[-1]) == ("LOST", "DISCARDED")
        assert (site.machines_at("host-a"), site.machines_at("host-b")) == ([], [])
