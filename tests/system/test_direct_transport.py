"""Migrations whose memory travels over connections of its own, beside gRPC, under mutual TLS."""

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
    started,
    works,
)
from tests.system.command import viaduct
from tests.system.site import Site
from vm_migration.api.v1 import destination_pb2
from vm_migration.errors import MigrationError, Refused


@pytest.mark.parametrize(("transport", "streams"), [("grpc", 3), ("direct", 1), ("direct", 3)])
async def test_a_machine_goes_there_and_back(site: Site, agents: Agents, transport: str, streams: int) -> None:
    terms = policy(transport=transport, streams=streams)
    async with machine(site, agents, specification(f"{transport}-{streams}")) as created:
        uuid, jobs = created.machine, 0
        await works(site, "host-a", uuid)
        for source, destination in (("host-a", "host-b"), ("host-b", "host-a")):
            report = await migrated(agents, uuid, source, destination, terms)
            require_whole(report)
            assert report.transport == transport
            jobs = await works(site, destination, uuid, max(jobs, report.guest.jobs_done))
        assert site.machines_at("host-b") == []
        assert site.holders_of_ram(f"{transport}-{streams}") == []


async def test_the_command_takes_transport_and_streams(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("ordered")) as created:
        words = ("--transport", "direct", "--streams", "4", "--downtime-limit", "2s", "--json")
        ended = await viaduct(site, "migrate", "ordered", "--to", "host-b", *words)
        assert (ended.exit_code, ended.document["outcome"]) == (0, "completed"), ended
        assert ended.document["transport"] == "direct"
        assert ended.document["pages_mismatched"] == 0
        await works(site, "host-b", created.machine)


async def test_direct_streams_go_to_a_port_of_their_own(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("ports")) as created:
        attempt = await started(agents, created.machine, "host-a", "host-b", endless(transport="direct"))
        await attempt.in_the_middle()
        assert attempt.prepared.bulk_address != attempt.prepared.control_address
        await agents.cancel("host-a", attempt.key)
        report = await attempt.end()
        assert (report.outcome, report.state, report.error.code) == ("cancelled", "ABORTED", "cancelled")
        await works(site, "host-a", created.machine, await jobs_done(site, "host-a", created.machine))
        assert site.states("host-b", created.machine) in (["PREPARED"], ["PREPARED", "DISCARDED"])  # told after the end


@pytest.mark.parametrize("closed", [False, True], ids=["pulled", "closed"])
async def test_a_direct_stream_that_is_cut_in_the_middle_leaves_the_machine(
    site: Site, agents: Agents, closed: bool
) -> None:
    async with machine(site, agents, specification(f"cut-{closed}".lower())) as created:
        attempt = await begin(agents, created.machine, "host-a", "host-b", endless(transport="direct"))
        await attempt.prepare()
        async with AsyncExitStack() as stack:
            cable = await stack.enter_async_context(cable_to(attempt.prepared.bulk_address))
            attempt.prepared.bulk_address = cable.address
            await attempt.start()
            await attempt.in_the_middle()
            if closed:
                await stack.aclose()
            else:
                cable.pull()
            report = await attempt.end()
        assert (report.outcome, report.state) == ("failed", "ABORTED")
        assert report.error.code in ({"stream-closed", "unreachable"} if closed else {"stream-stalled"})
        await works(site, "host-a", created.machine, await jobs_done(site, "host-a", created.machine))
        require_whole(
            await migrated(agents, created.machine, "host-a", "host-b", policy(transport="direct", streams=2))
        )


async def test_only_the_source_with_its_ticket_sends_over_direct_streams(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("guarded-direct")) as created:
        attempt = await begin(agents, created.machine, "host-a", "host-b", policy(transport="direct"))
        await attempt.prepare()
        before, ticket = site.written(), attempt.prepared.ticket
        assert (await _refusal(site, attempt, "host-c", ticket)).code == "wrong-source"
        assert (await _refusal(site, attempt, "operator", ticket)).code == "role"
        assert (await _refusal(site, attempt, "host-a", bytes(32))).code == "wrong-ticket"
        assert site.written() == before
        await agents.cancel("host-a", attempt.key)
        ended = await attempt.end()
        proof = destination_pb2.DiscardRequest(key=attempt.key, proof_state=ended.state, proof_record=ended.record)
        await agents.discard("host-b", proof)


async def test_a_transport_that_nobody_has_is_refused_before_anything_is_done(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("by-post")) as created:
        attempt = await begin(agents, created.machine, "host-a", "host-b")
        attempt.transport, before = "pigeon", site.written()
        with pytest.raises(Refused) as refusal:
            await attempt.prepare()
        assert refusal.value.code == "transport-not-offered"
        assert (site.written(), site.machines_at("host-b")) == (before, [])
        await agents.cancel("host-a", attempt.key)
        await attempt.end()


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
