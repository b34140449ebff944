from orchestrator.agents import Agents
from tests.system.attempts import MIB, machine, migrated, policy, require_whole, specification
from tests.system.processes import own_memory
from tests.system.site import Site

LIMIT = 150 * MIB


async def test_an_agent_needs_little_of_its_own_whatever_the_guest_has(site: Site, agents: Agents) -> None:
    wanted = specification("broad", memory_size="512MiB")
    async with machine(site, agents, wanted) as created:
        report = await migrated(agents, created.machine, "host-a", "host-b", policy(limit_ms=5000))
        require_whole(report)
        # What C libraries free they keep, so this is close to the most that there was.
        agents_used = {name: own_memory(pid) for pid, name in site.agent_pids().items()}
        assert {name: used for name, used in agents_used.items() if used > LIMIT} == {}
