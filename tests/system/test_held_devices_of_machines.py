"""Attempts under urgent that hold a network card: to their end, and through the death of the agent that held it."""

from orchestrator.agents import Agents
from tests.system.attempts import DEADLINE, MIB, Attempt, machine, policy, require_whole, specification, started, works
from tests.system.site import Site
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.machine.software import SoftwareMachine

CARD: dict[str, object] = {
    "name": "nic0",
    "model": "nic",
    "dma_rate": "20MiB/s",
    "viommu_model": "none",
    "guest_cpu_dirty_rate": "1MiB/s",
    "guest_working_set": "1MiB",
}
"""It writes more than OUTRUN carries, and vCPUs write next to nothing."""


def outrun() -> types_pb2.Policy:
    """Return a policy under which only less of the card's writes could let the attempt converge."""
    terms = policy(limit_ms=300, bandwidth=6 * MIB)
    terms.profile, terms.compression = "urgent", "none"
    return terms


async def held(agents: Agents, uuid: str) -> Attempt:
    """Start an attempt, and return it once a round tells that devices were held while it ran."""
    attempt = await started(agents, uuid, "host-a", "host-b", outrun())
    report = await attempt.until(
        lambda told: bool(told.rounds) and told.rounds[-1].device_throttle_percent > 0, 2 * DEADLINE
    )
    assert "of the time of nic0 taken: it does not converge" in report.reason
    assert not any(each.throttle_percent for each in report.rounds)
    return attempt


async def test_a_machine_whose_card_is_held_arrives_whole_with_its_card_at_work(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("held", **CARD)) as created:
        uuid = created.machine
        await works(site, "host-a", uuid)
        attempt = await held(agents, uuid)
        tuned = source_pb2.TuneRequest(key=attempt.key, downtime_limit_ms=10_000, max_bandwidth_bytes_per_s=1 << 30)
        await agents.tune("host-a", tuned)
        report = await attempt.end()
        require_whole(report)
        assert report.rounds[-1].dma_dirtied_pages == 0, "nothing writes after the stop"
        await works(site, "host-b", uuid, report.guest.jobs_done)


async def test_a_card_that_was_held_works_again_once_its_agent_is_killed(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("orphan", **CARD)) as created:
        uuid = created.machine
        await held(agents, uuid)
        looker = SoftwareMachine(site.directory("host-a", uuid).path)
        before = (await looker.describe()).guest.jobs_done
        site.source("host-a").kill()
        while (throttle := (await looker.describe()).device_throttle) is None or throttle.percent:
            pass  # each look is a turn of the machine's loop, which hears of the end in one of them
        await looker.close()
        done = await works(site, "host-a", uuid, before)
        site.source("host-a").start()
        assert site.states("host-a", uuid)[-1] == "ABORTED"
        await works(site, "host-a", uuid, done)
