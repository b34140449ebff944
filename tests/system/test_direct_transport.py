"""Migrations whose memory travels over connections of its own, beside gRPC, under mutual TLS.

What holds of a stream by itself, a cable that is pulled say, is shown over both transports in tests/transports.
"""

import asyncio
from contextlib import AsyncExitStack

import pytest

from orchestrator.agents import Agents
from source_agent.destination_link import DestinationLink
from tests.fakes.cable import cable_to
from tests.fakes.far_end import an_end
from tests.system.attempts import (
    Attempt,
    begin,
    endless,
    jobs_done,
    machine,
    migrated,
    policy,
    require_whole,
    specification,
    works,
)
from tests.system.command import viaduct
from tests.system.site import Site
from vm_migration.errors import MigrationError, Refused


async def test_a_machine_goes_there_and_back_and_there_over_either_transport(site: Site, agents: Agents) -> None:
    calm = specification("to-and-fro", guest_working_set="8MiB", guest_cpu_dirty_rate="8MiB/s")
    async with machine(site, agents, calm) as created:
        uuid = created.machine
        await works(site, "host-a", uuid)
        words = ("--transport", "direct", "--streams", "4", "--downtime-limit", "2s", "--measure", "0s", "--json")
        ended = await viaduct(site, "migrate", "to-and-fro", "--to", "host-b", *words)
        assert (ended.exit_code, ended.document["outcome"]) == (0, "completed"), ended
        assert (ended.document["transport"], ended.document["pages_mismatched"]) == ("direct", 0)
        jobs = await works(site, "host-b", uuid)
        for source, destination, transport, streams in (
            ("host-b", "host-a", "grpc", 3),
            ("host-a", "host-b", "direct", 1),
        ):
            terms = policy(transport=transport, streams=streams)
            report = await migrated(agents, uuid, source, destination, terms)
            require_whole(report)
            assert report.transport == transport
            jobs = await works(site, destination, uuid, max(jobs, report.guest.jobs_done))
        assert site.machines_at("host-a") == []
        assert site.holders_of_ram("to-and-fro") == []


async def test_direct_streams_are_the_source_s_alone_and_end_with_a_cancel(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("guarded")) as created:
        attempt = await begin(agents, created.machine, "host-a", "host-b", endless(transport="direct"))
        await _unknown_transport_is_refused(site, attempt)
        await attempt.prepare()
        assert attempt.prepared.bulk_address != attempt.prepared.control_address
        before, ticket = site.written(), attempt.prepared.ticket
        assert (await _refusal(site, attempt, "host-c", ticket)).code == "wrong-source"
        assert (await _refusal(site, attempt, "operator", ticket)).code == "role"
        assert (await _refusal(site, attempt, "host-a", bytes(32))).code == "wrong-ticket"
        assert site.written() == before
        await attempt.start()
        await attempt.in_the_middle()
        await agents.cancel("host-a", attempt.key)
        report = await attempt.end()
        assert (report.outcome, report.state, report.error.code) == ("cancelled", "ABORTED", "cancelled")
        await works(site, "host-a", created.machine, await jobs_done(site, "host-a", created.machine))
        assert site.states("host-b", created.machine) in (["PREPARED"], ["PREPARED", "DISCARDED"])  # told after the end


async def test_a_direct_stream_that_is_cut_in_the_middle_leaves_the_machine(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("cut")) as created:
        attempt = await begin(agents, created.machine, "host-a", "host-b", endless(transport="direct"))
        await attempt.prepare()
        async with AsyncExitStack() as stack:
            cable = await stack.enter_async_context(cable_to(attempt.prepared.bulk_address))
            attempt.prepared.bulk_address = cable.address
            await attempt.start()
            await attempt.in_the_middle()
            await stack.aclose()
            report = await attempt.end()
        assert (report.outcome, report.state) == ("failed", "ABORTED")
        assert report.error.code in {"stream-closed", "unreachable"}
        await works(site, "host-a", created.machine, await jobs_done(site, "host-a", created.machine))
        require_whole(
            await migrated(agents, created.machine, "host-a", "host-b", policy(transport="direct", streams=2))
        )


async def _unknown_transport_is_refused(site: Site, attempt: Attempt) -> None:
    """See that one which no destination has is refused before anything is done."""
    before, attempt.transport = site.written(), "pigeon"
    with pytest.raises(Refused) as refusal:
        await attempt.prepare()
    assert refusal.value.code == "transport-not-offered"
    assert (site.written(), site.machines_at("host-b")) == (before, [])
    attempt.transport = "direct"


async def _refusal(site: Site, attempt: Attempt, name: str, ticket: bytes) -> MigrationError:
    link = DestinationLink(
        host="host-b",
        control=attempt.prepared.control_address,
        bulk=attempt.prepared.bulk_address,
        tls=site.identities[name],
        attempt=attempt.key.attempt,
        transport="direct",
    )
    with an_end() as ended:
        async with asyncio.timeout(10.0), link, link.streams(ticket, 1):
            await asyncio.Event().wait()
    return ended[0]
