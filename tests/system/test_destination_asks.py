"""A destination's question to a real source agent, and what it hears: proofs, and silence that proves nothing."""

import signal

import msgspec

from dest_agent.sources import Sources
from orchestrator.agents import Agents
from tests.system.attempts import endless, machine, migrated, specification, started
from tests.system.site import Site
from vm_migration.handover.evidence import Absence
from vm_migration.handover.record import Record
from vm_migration.handover.states import State


def sources(site: Site) -> Sources:
    addresses = {host: each.source for host, each in site.addresses.items()}
    return Sources(addresses, site.identities["host-b"])


def arrived(site: Site, machine: str) -> Record:
    record = site.record("host-b", machine)
    assert record is not None
    return record


async def test_a_source_says_where_it_stands_and_a_frozen_one_says_nothing(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("asked")) as created:
        attempt = await started(agents, created.machine, "host-a", "host-b", endless())
        await attempt.in_the_middle()
        arriving = arrived(site, created.machine)
        under_way = await sources(site).ask(arriving)
        assert (under_way.heard, under_way.view.sight) == (True, State.OUTGOING)
        source = site.source("host-a").process
        assert source is not None
        source.send_signal(signal.SIGSTOP)
        silent = await sources(site).ask(arriving, 0.5)
        source.send_signal(signal.SIGCONT)
        assert (silent.heard, silent.view.sight) == (False, Absence.UNREACHABLE)
        await agents.cancel("host-a", attempt.key)
        assert (await attempt.end()).outcome == "cancelled"
        ended = await sources(site).ask(arriving)
        assert ended.view.sight is State.ABORTED
        assert ended.sequence > under_way.sequence > 0
        await migrated(agents, created.machine, "host-a", "host-b")
        assert (await sources(site).ask(arrived(site, created.machine))).view.sight is State.RETIRED
        assert "stood at" in (await sources(site).ask(arriving)).silence  # this side's journal was further before
        untold = msgspec.structs.replace(arriving, sequence=0)
        assert (await sources(site).ask(untold)).view.sight is Absence.PASSED
        assert arrived(site, created.machine).former_retired
