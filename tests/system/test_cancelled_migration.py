import pytest

from orchestrator.agents import Agents
from tests.system.attempts import (
    DEADLINE,
    begin,
    endless,
    jobs_done,
    machine,
    migrated,
    require_whole,
    specification,
    started,
    works,
)
from tests.system.processes import ended
from tests.system.site import Site
from vm_migration.errors import Refused


async def test_a_cancel_in_precopy_is_heard_at_once_and_leaves_nothing(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("kept")) as created:
        uuid = created.machine
        attempt = await started(agents, uuid, "host-a", "host-b", endless())
        await attempt.in_the_middle()
        arriving = site.instance("host-b", uuid)
        await agents.cancel("host-a", attempt.key)
        await agents.cancel("host-a", attempt.key)
        report = await attempt.end()
        assert not report.rounds, "it was heard in the first round, which takes seconds"
        assert (report.outcome, report.state, report.error.code) == ("cancelled", "ABORTED", "cancelled")
        assert (await agents.cancel("host-a", attempt.key)).outcome == "cancelled"
        await works(site, "host-a", uuid, await jobs_done(site, "host-a", uuid))
        assert ended(arriving.vmm.pid, DEADLINE)
        assert ended(arriving.host.pid, DEADLINE)
        assert site.states("host-b", uuid) == ["PREPARED", "DISCARDED"]
        require_whole(await migrated(agents, uuid, "host-a", "host-b"))


async def test_a_cancel_before_the_start_ends_the_attempt(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("unstarted")) as created:
        attempt = await begin(agents, created.machine, "host-a", "host-b")
        await agents.cancel("host-a", attempt.key)
        report = await attempt.end()
        assert (report.outcome, report.state) == ("cancelled", "ABORTED")
        await works(site, "host-a", created.machine)
        assert site.machines_at("host-b") == []


async def test_a_cancel_after_the_completion_is_refused(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("away")) as created:
        attempt = await started(agents, created.machine, "host-a", "host-b")
        require_whole(await attempt.end())
        with pytest.raises(Refused) as refusal:
            await agents.cancel("host-a", attempt.key)
        assert refusal.value.code == "past-return"
        await works(site, "host-b", created.machine)
