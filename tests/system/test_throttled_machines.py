"""A machine whose vCPUs write more than the link carries, moved under urgent by two agents."""

from orchestrator.agents import Agents
from tests.system.attempts import DEADLINE, MIB, machine, policy, require_whole, specification, started, works
from tests.system.site import Site
from vm_migration.api.v1 import types_pb2
from vm_migration.machine.software import SoftwareMachine

GUEST: dict[str, object] = {"guest_cpu_dirty_rate": "40MiB/s", "guest_working_set": "40MiB", "dma_rate": "1MiB/s"}


def outrun() -> types_pb2.Policy:
    """Return a policy under which the working set takes more than a second, and a stop may take a tenth of one."""
    terms = policy(limit_ms=100, bandwidth=16 * MIB)
    terms.profile, terms.compression = "urgent", "none"
    return terms


async def test_a_guest_that_does_not_converge_is_throttled_and_arrives_whole(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("outrun", **GUEST)) as created:
        uuid = created.machine
        attempt = await started(agents, uuid, "host-a", "host-b", outrun())
        report = await attempt.until(
            lambda told: "of its vCPUs' time taken: it does not converge" in told.reason, 2 * DEADLINE
        )
        assert not any(each.throttle_percent for each in report.rounds), "not before it has stalled"
        looker = SoftwareMachine(site.directory("host-a", uuid).path)
        taken = (await looker.describe()).throttle_percent
        await looker.close()
        assert taken is not None
        assert f"with {taken} % of its vCPUs' time" in report.reason
        await agents.force("host-a", attempt.key)
        report = await attempt.end()
        assert any(each.throttle_percent == taken for each in report.rounds)
        require_whole(report)
        arrived = SoftwareMachine(site.directory("host-b", uuid).path)
        assert (await arrived.describe()).throttle_percent == 0
        await arrived.close()
        await works(site, "host-b", uuid, report.guest.jobs_done)
