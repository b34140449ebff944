"""Certificates are renewed while a machine moves: nobody is restarted, and nothing fails."""

import asyncio
import json

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import (
    ENDLESS,
    endless,
    in_the_middle,
    machine,
    migrated,
    policy,
    require_whole,
    specification,
    started,
    works,
)
from tests.system.command import finished, running, viaduct
from tests.system.orchestrated import orchestrated
from tests.system.site import Site
from tests.vm_migration.link.answering_agent import shown
from vm_migration.daemon.audit_file import AUDIT_LOG
from vm_migration.link.pki import renew

OFTEN = 3
"""A channel is closed at the renewal after the one that it was opened before."""


@pytest.mark.parametrize("transport", ["grpc", "direct", "sealed"])
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


async def test_an_orchestrator_s_certificate_is_renewed_while_it_drives(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("driven")) as created:
        with orchestrated(site) as made:
            words = ("migrate", "driven", "--to", "host-b", *ENDLESS, "--json")
            async with running(site, *words, config=made.operator) as asking:
                await in_the_middle(agents, "host-a", created.machine)
                attempt = (await agents.get_machine("host-a", created.machine)).attempt
                for _ in range(OFTEN):  # what the orchestrator watches was opened before the first of them
                    for name in site.identities:
                        renew(site.folder / "pki", name)
                    said = await viaduct(site, "tune", attempt, "--max-bandwidth", "24MiB/s", config=made.operator)
                    assert said.exit_code == 0, said.err
                said = await viaduct(site, "force", attempt, "--json", config=made.operator)
                assert said.exit_code == 0, said.err
                moved = await finished(asking)
            assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
            text = (made.store.parent / AUDIT_LOG).read_text()
        told = [
            (line["who"], line["call"], line["attempt"], line["outcome"]) for line in map(json.loads, text.splitlines())
        ]
        operator = "viaduct://test/operator/operator"
        assert told == [
            (operator, f"Orchestrator/{call}", attempt, "done")
            for call in ("SubmitMigration", *["TuneAttempt"] * OFTEN, "ForceAttempt")
        ]
        await works(site, "host-b", created.machine)
