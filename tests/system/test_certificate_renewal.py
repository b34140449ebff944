"""Certificates are renewed while a machine moves: nobody is restarted, and nothing fails."""

import asyncio

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import endless, machine, migrated, policy, require_whole, specification, started, works
from tests.system.command import viaduct
from tests.system.site import Site
from tests.vm_migration.link.answering_agent import shown
from vm_migration.link.pki import renew


@pytest.mark.parametrize("transport", ["grpc", "direct"])
async def test_certificates_are_renewed_during_a_migration(site: Site, agents: Agents, transport: str) -> None:
    async with machine(site, agents, specification(f"renewed-{transport}")) as created:
        attempt = await started(agents, created.machine, "host-a", "host-b", endless(transport=transport))
        await attempt.in_the_middle()
        pids, before = site.agent_pids(), site.identities["host-b"].certificate.read_text()
        for name in site.identities:
            renew(site.folder / "pki", name)
        listening = site.addresses["host-b"].dest
        now = await asyncio.to_thread(shown, listening, site.identities["operator"])
        assert now == site.identities["host-b"].certificate.read_text() != before
        await attempt.in_the_middle()  # it goes on, and is watched over a channel with the new certificate
        said = await viaduct(site, "force", attempt.key.attempt, "--json")
        assert said.exit_code == 0, said.err
        require_whole(await attempt.end())
        assert site.agent_pids() == pids
        require_whole(await migrated(agents, created.machine, "host-b", "host-a", policy(transport=transport)))
        await works(site, "host-a", created.machine)
