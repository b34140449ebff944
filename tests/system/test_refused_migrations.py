"""What is refused, is refused before anything happens: no journal changes, no process starts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from orchestrator.agents import Agents
from source_agent.destination_link import DestinationLink
from tests.system.attempts import Attempt, begin, machine, migrated, policy, require_whole, specification, works
from tests.system.command import viaduct
from tests.system.site import Site
from vm_migration.api.v1 import destination_pb2, source_pb2, types_pb2
from vm_migration.errors import AttemptFailed, MigrationError, Refused, Unauthorised
from vm_migration.handover.record import encode
from vm_migration.transfer.outgoing import OutgoingStream


@asynccontextmanager
async def begun(
    site: Site, agents: Agents, name: str, destination: str = "host-b", **changes: object
) -> AsyncIterator[Attempt]:
    """Have an attempt that was begun at host-a; it is cancelled and discarded at the end."""
    async with machine(site, agents, specification(name, **changes)) as created:
        attempt = await begin(agents, created.machine, "host-a", destination)
        try:
            yield attempt
        finally:
            await agents.cancel("host-a", attempt.key)
            report = await attempt.end()
            await works(site, "host-a", created.machine)
            if created.machine in site.machines_at(destination):
                proof = destination_pb2.DiscardRequest(
                    key=attempt.key, proof_state=report.state, proof_record=report.record
                )
                await agents.discard(destination, proof)


def link(site: Site, attempt: Attempt, name: str) -> DestinationLink:
    """Return a source's link to host-b, with somebody's certificate."""
    address = site.addresses["host-b"].dest
    return DestinationLink(
        host="host-b", control=address, bulk=address, tls=site.identities[name], attempt=attempt.key.attempt
    )


async def test_a_name_that_the_destination_has_already(site: Site, agents: Agents) -> None:
    wanted = specification("twin")
    other = await agents.create_machine("host-b", wanted.to_json(), wanted.memory.size)
    try:
        async with begun(site, agents, "twin") as attempt:
            before = site.written()
            with pytest.raises(Refused) as refusal:
                await attempt.prepare()
            assert refusal.value.code == "machine-exists"
            assert site.written() == before
            assert site.machines_at("host-b") == [other.machine]
    finally:
        await agents.act_on_machine("host-b", other.machine, "destroy")


async def test_more_memory_than_the_destination_may_give(site: Site, agents: Agents) -> None:
    site.run("host-c")
    async with begun(site, agents, "large", "host-c", memory_size="128MiB") as attempt:
        before = site.written()
        with pytest.raises(Refused) as refusal:
            await attempt.prepare()
        assert refusal.value.code == "no-memory"
        assert (site.written(), site.machines_at("host-c")) == (before, [])


async def test_a_second_attempt_while_one_is_open(site: Site, agents: Agents) -> None:
    async with begun(site, agents, "taken") as attempt:
        before = site.written()
        with pytest.raises(Refused) as refusal:
            await begin(agents, attempt.key.machine, "host-a", "host-b")
        assert refusal.value.code == "attempt-open"
        assert attempt.key.attempt in refusal.value.message
        assert site.written() == before


async def test_a_viewer_begins_nothing(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("looked-at")) as created, site.agents("viewer") as viewer:
        before = site.written()
        assert (await viewer.get_machine("host-a", created.machine)).name == "looked-at"
        with pytest.raises(Unauthorised) as refusal:
            await begin(viewer, created.machine, "host-a", "host-b")
        assert refusal.value.code == "role"
        assert site.written() == before


async def test_a_bulk_stream_needs_the_ticket_and_comes_once(site: Site, agents: Agents) -> None:
    async with begun(site, agents, "ticketed") as attempt:
        await attempt.prepare()
        before = site.written()
        ticket = attempt.prepared.ticket
        async with link(site, attempt, "host-a") as source:
            assert (await _refusal(source, attempt, bytes(32))).code == "wrong-ticket"
            assert (await _refusal(source, attempt, ticket[:-1])).code == "wrong-ticket"
            # The one that is let in only then offers a frame of no round; its place is taken all the same.
            assert isinstance(await _refusal(source, attempt, ticket, offers=True), AttemptFailed)
            assert (await _refusal(source, attempt, ticket)).code == "stream-taken"
        assert site.written() == before


async def test_another_host_of_the_site_is_not_the_source(site: Site, agents: Agents) -> None:
    async with begun(site, agents, "guarded") as attempt:
        await attempt.prepare()
        before = site.written()
        async with link(site, attempt, "host-c") as other:
            with pytest.raises(Unauthorised, match="host-c is not the source"):
                await other.open_round(destination_pb2.OpenRoundRequest(key=attempt.key, round=0))
            with pytest.raises(Unauthorised, match="host-c is not the source"):
                await other.finish(destination_pb2.FinishRequest(key=attempt.key, pause=1), 5.0)
            assert (await _refusal(other, attempt, attempt.prepared.ticket)).code == "wrong-source"
            with pytest.raises(Unauthorised, match="host-c is not the source"):
                await other.handoff(destination_pb2.HandoffRequest(key=attempt.key, pause=1, secret=bytes(32)))
            proof = destination_pb2.DiscardRequest(key=attempt.key, proof_record=_last_at_source(site, attempt))
            with pytest.raises(Unauthorised, match="host-c is not the source"):
                await other.discard(proof)
            with pytest.raises(Unauthorised, match="host-c is not the source"):
                await other.note_retired(destination_pb2.NoteRetiredRequest(key=attempt.key))
        assert site.written() == before


async def test_an_orchestrator_gives_no_operator_s_word(site: Site, agents: Agents) -> None:
    async with begun(site, agents, "unvouched") as attempt, site.agents("orchestrator") as orchestrator:
        await attempt.prepare()
        before = site.written()
        word = types_pb2.TakeRequest(key=attempt.key, highest_seen=9, fenced="host-a", reason="nobody's word")
        for refused in (
            orchestrator.take_at_source("host-a", word),
            orchestrator.take_at_destination("host-b", word),
            orchestrator.note_retired(
                "host-b", destination_pb2.NoteRetiredRequest(key=attempt.key, fenced_by="nobody's word")
            ),
        ):
            with pytest.raises(Unauthorised) as caught:
                await refused
            assert caught.value.code == "role"
        assert site.written() == before


async def test_a_wrong_secret_activates_nothing(site: Site, agents: Agents) -> None:
    async with begun(site, agents, "secretive") as attempt:
        await attempt.prepare()
        before = site.written()
        request = destination_pb2.HandoffRequest(key=attempt.key, pause=1, secret=bytes(32))
        async with link(site, attempt, "host-a") as source:
            with pytest.raises(Unauthorised) as refusal:
                await source.handoff(request)
            assert refusal.value.code == "wrong-secret"
            assert site.written() == before
            # Nor does one after a restart, when the arrival is only a journal.
            site.dest("host-b").kill()
            site.dest("host-b").start()
            before = site.written()
            with pytest.raises(MigrationError):
                await source.handoff(request)
            assert site.written() == before


async def test_type1_is_refused_until_it_is_forced_and_its_standstill_allowed(site: Site, agents: Agents) -> None:
    cell: dict[str, object] = {"backend": "type1", "viommu_mode": "legacy", "guest_iommu": "pt"}
    async with machine(site, agents, specification("auto", **cell)) as created:
        found = await _checked(agents, created.machine, policy())
        assert "no-dirty-tracking" in {blocker.code for blocker in found.blockers}
        refused = await viaduct(site, "migrate", "auto", "--to", "host-b", "--json")
        assert (refused.exit_code, refused.document["outcome"]) == (3, "refused")
        assert site.states("host-a", created.machine) == ["OWNER"]

    async with machine(site, agents, specification("forced", **cell, enable_migration="on")) as created:
        found = await _checked(agents, created.machine, policy(limit_ms=60))
        assert [blocker.code for blocker in found.blockers] == ["standstill-over-limit"]
        needed = round(found.expected.downtime_ms)
        assert str(needed) in found.blockers[0].message
        # On a busy machine a round may be slower than what is expected before anything was measured.
        report = await migrated(agents, created.machine, "host-a", "host-b", policy(limit_ms=max(needed, 3000)))
        require_whole(report)
        await works(site, "host-b", created.machine, report.guest.jobs_done)


def _last_at_source(site: Site, attempt: Attempt) -> str:
    record = site.record(attempt.source, attempt.key.machine)
    assert record is not None
    return encode(record.public()).decode()


async def _refusal(source: DestinationLink, attempt: Attempt, ticket: bytes, *, offers: bool = False) -> MigrationError:
    """Return what a stream with a ticket is answered, at once or to a frame."""
    try:
        async with asyncio.timeout(5.0), source.streams(ticket, 1) as (stream,):
            if offers:
                await stream.send(OutgoingStream(UUID(attempt.key.attempt), 0).heartbeat(0))
            await asyncio.Event().wait()
    except ExceptionGroup as refusals:
        (refusal,) = refusals.exceptions
        assert isinstance(refusal, MigrationError)
        return refusal
    raise AssertionError("The stream was let in")


async def _checked(agents: Agents, name: str, terms: types_pb2.Policy) -> source_pb2.CheckOutgoingResponse:
    request = source_pb2.CheckOutgoingRequest(machine=name, destination="host-b", policy=terms)
    return await agents.check_outgoing("host-a", request)
