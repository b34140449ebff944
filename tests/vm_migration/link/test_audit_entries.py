"""One entry for each call that changes something, however it ends; none for a look, and none for a stream of pages."""

import asyncio
from functools import partial

import grpc.aio
import pytest

from tests.fakes.obeying_agents import Holding, Taking
from tests.vm_migration.link.answering_agent import PEER, Site, bulk_echo
from vm_migration.api.v1 import destination_pb2, machine_pb2, orchestrator_pb2, source_pb2, types_pb2
from vm_migration.api.v1.destination_pb2_grpc import (
    DestinationStub,
    add_DestinationServicer_to_server,
)
from vm_migration.api.v1.source_pb2_grpc import SourceStub, add_SourceServicer_to_server
from vm_migration.errors import AttemptFailed, InvalidInput, MigrationError, Refused, Stale, Unauthorised, Unreachable
from vm_migration.link.audit import Entry, entry_of
from vm_migration.link.call import call
from vm_migration.link.channel import open_channel
from vm_migration.link.identity import Identity, Role
from vm_migration.link.server import AgentServer, Service
from vm_migration.telemetry.counts import LOST_AUDIT_LINES

ANNA = Identity("home", Role.OPERATOR, "anna")
MACHINE, ATTEMPT = "7c1f0f10-0000-4000-8000-000000000001", "7c1f0f10-0000-4000-8000-000000000002"
KEY = types_pb2.AttemptKey(machine=MACHINE, attempt=ATTEMPT, epoch=7, term=2)
API = "/vm_migration.api.v1."


def entry(method: str, request: object, answer: object = None, error: BaseException | None = None) -> Entry:
    return entry_of(f"{API}{method}", ANNA, "ipv4:10.0.0.9:1", request=request, answer=answer, error=error)


def test_an_entry_says_who_did_what_to_which_machine_and_epoch() -> None:
    said = entry("Source/Cancel", source_pb2.AttemptRequest(key=KEY), source_pb2.AttemptReport(key=KEY))
    assert said == Entry(
        who="viaduct://home/operator/anna",
        address="ipv4:10.0.0.9:1",
        call="Source/Cancel",
        machine=MACHINE,
        attempt=ATTEMPT,
        epoch=7,
        term=2,
        detail="",
        outcome="done",
    )
    assert not said.word


def test_what_only_the_answer_knows_is_taken_from_it() -> None:
    asked = types_pb2.AttemptKey(machine=MACHINE, attempt=ATTEMPT, term=2)
    begun = entry(
        "Source/Begin", source_pb2.BeginRequest(key=asked, destination="host-b"), source_pb2.BeginResponse(key=KEY)
    )
    assert (begun.epoch, begun.detail) == (7, "host-b")
    created = entry(
        "Machines/CreateMachine",
        machine_pb2.CreateMachineRequest(specification=b"{}"),
        types_pb2.MachineStatus(machine=MACHINE, name="guest", epoch=1),
    )
    assert (created.machine, created.epoch) == (MACHINE, 1)
    named = machine_pb2.MachineRequest(machine="guest")
    assert entry("Machines/PauseMachine", named, types_pb2.MachineStatus(machine=MACHINE, epoch=4)).machine == MACHINE
    assert entry("Machines/PauseMachine", named, error=Refused("attempt-open", "")).machine == "guest"
    rate = machine_pb2.DirtyRate(status=types_pb2.MachineStatus(machine=MACHINE, epoch=4))
    assert entry("Machines/MeasureDirtyRate", machine_pb2.MeasureDirtyRateRequest(machine="guest"), rate).epoch == 4
    submitted = entry(
        "Orchestrator/SubmitMigration",
        orchestrator_pb2.SubmitMigrationRequest(machine="guest", attempt=ATTEMPT, destination="any"),
        orchestrator_pb2.AttemptRecord(key=KEY),
    )
    assert (submitted.machine, submitted.attempt, submitted.epoch, submitted.detail) == (MACHINE, ATTEMPT, 7, "any")


def test_an_operator_s_word_is_in_the_entry() -> None:
    request = types_pb2.TakeRequest(key=KEY, fenced="host-a", reason="anna@desk: host-a off")
    taken = entry("Destination/Take", request)
    assert (taken.detail, taken.word) == ("host-a: anna@desk: host-a off", True)
    retired = destination_pb2.NoteRetiredRequest(key=KEY, fenced_by="anna@desk")
    assert entry("Destination/NoteRetired", retired).word
    assert not entry("Destination/NoteRetired", destination_pb2.NoteRetiredRequest(key=KEY)).word


def test_no_secret_is_in_an_entry_and_nothing_that_fills_the_disk() -> None:
    secret = destination_pb2.HandoffRequest(key=KEY, pause=1, secret=b"swordfish")
    assert "swordfish" not in str(entry("Destination/Handoff", secret))
    long = entry("Machines/PauseMachine", machine_pb2.MachineRequest(machine="x" * 1_000_000))
    assert len(str(long)) < 1000


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (None, "done", ""),
        (Stale("stale-epoch", ""), "refused", "stale-epoch"),
        (Unauthorised("role", ""), "refused", "role"),
        (InvalidInput("bad-name", ""), "refused", "bad-name"),
        (NotImplementedError(), "refused", "not-offered"),
        (Unreachable("machine-silent", ""), "failed", "machine-silent"),
        (AttemptFailed("bad-frame", ""), "failed", "bad-frame"),
        (KeyError("swordfish"), "failed", "internal"),
        (asyncio.CancelledError(), "abandoned", ""),
    ],
)
def test_an_entry_says_how_the_call_ended(error: BaseException | None, outcome: str, code: str) -> None:
    said = entry("Source/Cancel", source_pb2.AttemptRequest(key=KEY), error=error)
    assert (said.outcome, said.code, said.machine) == (outcome, code, MACHINE)


def services(taking: Taking, holding: Holding) -> list[Service]:
    return [
        Service(f"{API[1:]}Destination", partial(add_DestinationServicer_to_server, taking)),
        Service(f"{API[1:]}Source", partial(add_SourceServicer_to_server, holding)),
        Service(f"{API[1:]}Bulk", lambda server: server.add_generic_rpc_handlers((bulk_echo(),))),
    ]


async def test_calls_over_the_link_are_written_down_before_they_are_answered(site: Site) -> None:
    written: list[Entry] = []
    taking, holding = Taking(), Holding()  # type: ignore[abstract]  # the other calls are answered UNIMPLEMENTED
    host = site.issue("host", "host-b")
    async with AgentServer("127.0.0.1:0", host, services(taking, holding), audit=written.append) as server:
        for who, code in (("operator", ""), ("viewer", "role")):
            async with open_channel(server.address, site.issue(who, who), "host-b") as channel:
                await _take(channel)
                await _look(channel)
            assert [(one.who, one.call, one.code) for one in written] == [
                (f"viaduct://home/{who}/{who}", "Destination/Take", code)
            ]
            written.clear()
        taking.act = _refuse
        async with open_channel(server.address, site.issue("operator", "anna"), "host-b") as channel:
            await _take(channel)
            await _cancelled(channel, holding)
        async with open_channel(server.address, site.issue("host", "host-a"), "host-b") as channel:
            await _pages(channel)
    assert [(one.call, one.outcome, one.code) for one in written] == [
        ("Destination/Take", "refused", "stale-epoch"),
        ("Source/Cancel", "abandoned", ""),
    ]
    assert all(one.address.startswith("ipv4:127.0.0.1:") for one in written)


async def test_a_look_for_which_a_machine_is_held_is_written_down_and_no_other(site: Site) -> None:
    written: list[Entry] = []
    taking, holding = Taking(), Holding()  # type: ignore[abstract]  # the other calls are answered UNIMPLEMENTED
    host = site.issue("host", "host-b")
    async with AgentServer("127.0.0.1:0", host, services(taking, holding), audit=written.append) as server:
        for who in ("operator", "viewer"):
            async with open_channel(server.address, site.issue(who, who), "host-b") as channel:
                for measure_ms in (0, 500):
                    request = source_pb2.CheckOutgoingRequest(machine=MACHINE, measure_ms=measure_ms)
                    with pytest.raises(Refused):
                        await call(SourceStub(channel).CheckOutgoing, request, peer=PEER, deadline=10)
    operator = "viaduct://home/operator/operator"
    assert [(one.who, one.call, one.machine) for one in written] == [(operator, "Source/CheckOutgoing", MACHINE)]


async def test_a_line_that_cannot_be_written_takes_no_answer_back(site: Site) -> None:
    def broken(_entry: Entry) -> None:
        raise KeyError("swordfish")

    before = sum(LOST_AUDIT_LINES.read().values())
    taking, holding = Taking(), Holding()  # type: ignore[abstract]  # the other calls are answered UNIMPLEMENTED
    host = site.issue("host", "host-b")
    async with (
        AgentServer("127.0.0.1:0", host, services(taking, holding), audit=broken) as server,
        open_channel(server.address, site.issue("operator", "anna"), "host-b") as channel,
    ):
        await call(DestinationStub(channel).Take, types_pb2.TakeRequest(key=KEY), peer=PEER, deadline=10)
    assert sum(LOST_AUDIT_LINES.read().values()) == before + 1


async def _take(channel: grpc.aio.Channel) -> None:
    request = types_pb2.TakeRequest(key=KEY, fenced="host-a", reason="anna")
    try:
        await call(DestinationStub(channel).Take, request, peer=PEER, deadline=10)
    except MigrationError:
        return


async def _look(channel: grpc.aio.Channel) -> None:
    request = destination_pb2.DescribeIncomingRequest(key=KEY)
    try:
        await call(DestinationStub(channel).DescribeIncoming, request, peer=PEER, deadline=10)
    except Unauthorised:
        return


async def _pages(channel: grpc.aio.Channel) -> None:
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"{API}Bulk/Send")
    assert [frame async for frame in method(iter([b"abc"]), timeout=10)] == [b"cba"]


async def _cancelled(channel: grpc.aio.Channel, holding: Holding) -> None:
    """Make a call, and go away while it is under way."""
    waiting = asyncio.ensure_future(
        call(SourceStub(channel).Cancel, source_pb2.AttemptRequest(key=KEY), peer=PEER, deadline=10)
    )
    await holding.came.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


def _refuse() -> None:
    raise Stale("stale-epoch", "Older")
