import pytest

from orchestrator.agents import Agents
from tests.system.attempts import jobs_done, machine, migrated, require_whole, specification, works
from tests.system.processes import ended
from tests.system.site import Site

CELLS = {
    "legacy": {"viommu_mode": "legacy"},
    "pass-through": {"guest_iommu": "pt"},
    "no-viommu": {"viommu_model": "none"},
}


async def test_a_running_machine_moves_whole_and_works_on(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("there")) as created:
        uuid = created.machine
        processes = site.instance("host-a", uuid)
        await works(site, "host-a", uuid)
        report = await migrated(agents, uuid, "host-a", "host-b")
        require_whole(report)
        assert report.downtime.downtime_ms > 0
        # Its numbers go on where they were, without gap or repeat: the guest counts either as an error.
        await works(site, "host-b", uuid, report.guest.jobs_done)
        status = await agents.get_machine("host-b", uuid)
        assert (status.state, status.epoch, status.run_state) == ("ACTIVE", created.epoch + 1, "running")
        assert status.guest.errors == 0
        # Nothing of it is left where it was.
        assert ended(processes.vmm.pid, 0)
        assert ended(processes.host.pid, 0)
        assert site.machines_at("host-a") == []
        assert site.holders_of_ram("there") == []
        assert site.states("host-a", uuid) == ["OWNER", "OUTGOING", "STOPPED", "RELEASED", "RETIRED"]
        assert site.states("host-b", uuid) == ["PREPARED", "READY", "ACTIVATING", "ACTIVE"]


async def test_a_machine_that_arrived_goes_onward_and_back(site: Site, agents: Agents) -> None:
    site.run("host-c")
    async with machine(site, agents, specification("traveller")) as created:
        uuid, epoch, jobs = created.machine, created.epoch, 0
        await works(site, "host-a", uuid)
        for source, destination in (("host-a", "host-b"), ("host-b", "host-c"), ("host-c", "host-a")):
            report = await migrated(agents, uuid, source, destination)
            require_whole(report)
            assert report.key.epoch == epoch + 1
            epoch, jobs = report.key.epoch, await works(site, destination, uuid, max(jobs, report.guest.jobs_done))
        assert (site.machines_at("host-b"), site.machines_at("host-c")) == ([], [])
        assert site.holders_of_ram("traveller") == []


async def test_a_paused_machine_arrives_paused_and_resumes_there(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("asleep")) as created:
        uuid = created.machine
        await works(site, "host-a", uuid)
        await agents.act_on_machine("host-a", uuid, "pause")
        before = await jobs_done(site, "host-a", uuid)
        report = await migrated(agents, uuid, "host-a", "host-b")
        require_whole(report)
        assert report.downtime.downtime_ms == 0
        status = await agents.get_machine("host-b", uuid)
        assert (status.run_state, status.guest.jobs_done) == ("paused", before)
        await agents.act_on_machine("host-b", uuid, "resume")
        await works(site, "host-b", uuid, before)


@pytest.mark.parametrize("cell", CELLS)
async def test_every_kind_of_viommu_moves(site: Site, agents: Agents, cell: str) -> None:
    async with machine(site, agents, specification(f"cell-{cell}", **CELLS[cell])) as created:
        await works(site, "host-a", created.machine)
        report = await migrated(agents, created.machine, "host-a", "host-b")
        require_whole(report)
        await works(site, "host-b", created.machine, report.guest.jobs_done)
