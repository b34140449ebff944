"""Device state that is larger than any message, and state that grows while it is sent."""

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import begin, machine, migrated, policy, require_whole, specification, started, works
from tests.system.site import Site
from vm_migration.errors import Refused

MIB = 1 << 20


async def test_a_graphics_processor_moves_with_all_of_its_memory(site: Site, agents: Agents) -> None:
    """Each of its results tells of every job before it, so that a lost byte of its memory is a guest's error."""
    wanted = specification("gpu", name="gpu0", model="gpu", local_memory="96MiB")
    async with machine(site, agents, wanted) as created:
        uuid = created.machine
        await works(site, "host-a", uuid)
        report = await migrated(agents, uuid, "host-a", "host-b", policy(limit_ms=10_000))
        require_whole(report)
        assert report.device_bytes > 96 * MIB
        assert report.rounds[-1].wire_bytes > 96 * MIB
        assert report.downtime.device_state_ms > 0
        await works(site, "host-b", uuid, report.guest.jobs_done)
        back = await migrated(agents, uuid, "host-b", "host-a", policy(limit_ms=10_000))
        require_whole(back)
        await works(site, "host-a", uuid, back.guest.jobs_done)


async def test_a_graphics_processor_that_cannot_move_in_time_is_refused(site: Site, agents: Agents) -> None:
    """What only a stop lets be read is in the expected standstill: the limit is kept, not found broken afterwards."""
    wanted = specification("slow", name="gpu0", model="gpu", local_memory="96MiB")
    async with machine(site, agents, wanted) as created:
        await works(site, "host-a", created.machine)
        with pytest.raises(Refused, match="devices' state"):
            await begin(agents, created.machine, "host-a", "host-b", policy(limit_ms=300, bandwidth=64 * MIB))
        await works(site, "host-a", created.machine)


async def test_an_attempt_cut_off_in_the_middle_of_device_state_leaves_the_device_at_work(
    site: Site, agents: Agents
) -> None:
    wanted = specification("cut-off", name="gpu0", model="gpu", local_memory="96MiB")
    async with machine(site, agents, wanted) as created:
        uuid = created.machine
        done = await works(site, "host-a", uuid)
        attempt = await started(agents, uuid, "host-a", "host-b", policy(limit_ms=12_000, bandwidth=40 * MIB))
        await attempt.until(lambda report: report.phase == "stopping")
        await agents.cancel("host-a", attempt.key)
        report = await attempt.end()
        assert (report.outcome, report.state) == ("cancelled", "ABORTED")
        await works(site, "host-a", uuid, done)
        require_whole(await migrated(agents, uuid, "host-a", "host-b", policy(limit_ms=10_000)))


async def test_a_network_card_moves_while_it_learns(site: Site, agents: Agents) -> None:
    wanted = specification("nic", name="nic0", model="nic", dma_rate="4MiB/s", viommu_model="none")
    async with machine(site, agents, wanted) as created:
        uuid = created.machine
        await works(site, "host-a", uuid)
        report = await migrated(agents, uuid, "host-a", "host-b")
        require_whole(report)
        await works(site, "host-b", uuid, report.guest.jobs_done)
