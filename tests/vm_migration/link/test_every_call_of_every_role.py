"""Every call of the contract, made by everybody over real handshakes: refused to all but those who are named here.

What is expected is written out once more, by hand: a row of the table that is changed by mistake fails.
"""

import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import pytest

from tests.vm_migration.link.answering_agent import Site, bulk_echo
from tests.vm_migration.link.contract import BULK, METHODS, SERVICES
from vm_migration.api.v1.destination_pb2_grpc import DestinationServicer, add_DestinationServicer_to_server
from vm_migration.api.v1.machine_pb2_grpc import (
    HostServicer,
    MachinesServicer,
    add_HostServicer_to_server,
    add_MachinesServicer_to_server,
)
from vm_migration.api.v1.orchestrator_pb2_grpc import OrchestratorServicer, add_OrchestratorServicer_to_server
from vm_migration.api.v1.source_pb2_grpc import SourceServicer, add_SourceServicer_to_server
from vm_migration.link import refusals
from vm_migration.link.authorisation import RULES
from vm_migration.link.channel import open_channel
from vm_migration.link.identity import Identity, Role
from vm_migration.link.machine_stream.opening import CARRY_METHOD, CARRY_SERVICE
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.server import AgentServer, Service
from vm_migration.link.tls import TlsFiles
from vm_migration.telemetry import logs
from vm_migration.telemetry.allowance import Allowance
from vm_migration.telemetry.counts import REFUSED_CALLS

EVERYBODY: Final = "host orchestrator operator viewer"
READERS: Final = "orchestrator operator viewer"
DRIVERS: Final = "orchestrator operator"
PARTIES: Final = "host orchestrator operator"
ALLOWED: Final[dict[str, str]] = {
    "Host/DescribeHost": EVERYBODY,
    "Host/ListCustodies": READERS,
    "Machines/CreateMachine": DRIVERS,
    "Machines/ListMachines": READERS,
    "Machines/GetMachine": READERS,
    "Machines/PauseMachine": DRIVERS,
    "Machines/ResumeMachine": DRIVERS,
    "Machines/DestroyMachine": DRIVERS,
    "Machines/SuspendMachine": DRIVERS,
    "Machines/WakeMachine": DRIVERS,
    "Machines/MeasureDirtyRate": DRIVERS,
    "Source/CheckOutgoing": READERS,
    "Source/Begin": DRIVERS,
    "Source/CheckUpdate": READERS,
    "Source/BeginUpdate": DRIVERS,
    "Source/Start": DRIVERS,
    "Source/GetAttempt": READERS,
    "Source/Watch": READERS,
    "Source/Cancel": DRIVERS,
    "Source/Force": DRIVERS,
    "Source/Tune": DRIVERS,
    "Source/DescribeOutgoing": EVERYBODY,
    "Source/Recover": DRIVERS,
    "Source/Take": "operator",
    "Destination/CheckIncoming": READERS,
    "Destination/Prepare": DRIVERS,
    "Destination/OpenRound": "host",
    "Destination/ListenForStream": "host",
    "Destination/Finish": "host",
    "Destination/Handoff": PARTIES,
    "Destination/DescribeIncoming": EVERYBODY,
    "Destination/Discard": PARTIES,
    "Destination/NoteRetired": PARTIES,
    "Destination/Recover": DRIVERS,
    "Destination/Take": "operator",
    "Bulk/Send": "host",
    "MachineStream/Carry": "host",
    "Orchestrator/ListAttempts": READERS,
    "Orchestrator/GetAttempt": READERS,
    "Orchestrator/WatchAttempt": READERS,
    "Orchestrator/SubmitMigration": DRIVERS,
    "Orchestrator/CancelAttempt": DRIVERS,
    "Orchestrator/ForceAttempt": DRIVERS,
    "Orchestrator/TuneAttempt": DRIVERS,
    "Orchestrator/SubmitUpdate": DRIVERS,
    "Orchestrator/ListEvacuations": READERS,
    "Orchestrator/GetEvacuation": READERS,
    "Orchestrator/WatchEvacuation": READERS,
    "Orchestrator/SubmitEvacuation": DRIVERS,
    "Orchestrator/CancelEvacuation": DRIVERS,
    "Orchestrator/GetMaintenance": READERS,
    "Orchestrator/SetMaintenance": DRIVERS,
}
API: Final = "/vm_migration.api.v1."


def all_services() -> list[Service]:
    """Return every service of the contract; each call that is let in is answered UNIMPLEMENTED, or echoed."""
    return [
        Service(f"{API[1:]}Host", partial(add_HostServicer_to_server, HostServicer())),  # type: ignore[abstract]  # as said
        Service(f"{API[1:]}Machines", partial(add_MachinesServicer_to_server, MachinesServicer())),  # type: ignore[abstract]  # as said
        Service(f"{API[1:]}Source", partial(add_SourceServicer_to_server, SourceServicer())),  # type: ignore[abstract]  # as said
        Service(f"{API[1:]}Destination", partial(add_DestinationServicer_to_server, DestinationServicer())),  # type: ignore[abstract]  # as said
        Service(f"{API[1:]}Orchestrator", partial(add_OrchestratorServicer_to_server, OrchestratorServicer())),  # type: ignore[abstract]  # as said
        Service(f"{API[1:]}Bulk", lambda server: server.add_generic_rpc_handlers((bulk_echo(),))),
        Service(CARRY_SERVICE, lambda server: server.add_generic_rpc_handlers((bulk_echo(CARRY_SERVICE, "Carry"),))),
    ]


async def answered(channel: grpc.aio.Channel, method: str) -> grpc.StatusCode:
    """Make a call with an empty request, and return how it ended; a stream that answers is let in."""
    if method in (BULK, CARRY_METHOD):
        both: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        echo = both(iter([b"frame"]), timeout=10)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await anext(aiter(echo))
        echo.cancel()
        code = await echo.code()
        return grpc.StatusCode.OK if code is grpc.StatusCode.CANCELLED else code
    if METHODS[method]:
        stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
        return await stream(b"", timeout=10).code()
    unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return await unary(b"", timeout=10).code()


@asynccontextmanager
async def everybody(site: Site, other: Path) -> AsyncIterator[Mapping[str, grpc.aio.Channel]]:
    """Serve every service, and open a channel for each role, and one for a site with the same authority's name."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            AgentServer("127.0.0.1:0", site.issue("host", "host-b"), all_services())
        )
        channels = {}
        for role in Role:
            channel = open_channel(server.address, site.issue(role, f"a-{role}"), "host-b")
            channels[str(role)] = await stack.enter_async_context(channel)
        create_authority(other, "home")
        strange = issue(other, Identity("home", Role.OPERATOR, "stranger"))
        mixed = TlsFiles(site.folder / "ca.pem", strange.certificate, strange.key)
        channels["stranger"] = await stack.enter_async_context(open_channel(server.address, mixed, "host-b"))
        yield channels


def test_every_call_of_the_contract_is_named_here_and_in_the_table() -> None:
    assert {f"{API}{name}" for name in ALLOWED} == set(METHODS) == set(RULES)


def test_every_service_of_the_contract_is_served_here() -> None:
    assert {service.name for service in all_services()} == SERVICES


async def test_every_call_is_refused_to_all_but_those_who_may_make_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "_lines", Allowance(refusals.LINES_AT_ONCE, 0))  # whatever was refused before this
    log = io.StringIO()
    logs.configure("test", stream=log)
    before, refused, let_in = sum(REFUSED_CALLS.read().values()), 0, 0
    async with everybody(site, tmp_path / "other") as channels:
        for name, roles in ALLOWED.items():
            for role in Role:
                code = await answered(channels[role], f"{API}{name}")
                if role in roles.split():
                    assert code in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.OK}, (name, role, code)
                    let_in += 1
                else:
                    assert code is grpc.StatusCode.PERMISSION_DENIED, (name, role, code)
                    refused += 1
        assert await answered(channels["stranger"], f"{API}Host/DescribeHost") is grpc.StatusCode.UNAVAILABLE
    assert refused + let_in == len(Role) * len(METHODS)
    assert sum(REFUSED_CALLS.read().values()) == before + refused
    told = [json.loads(line) for line in log.getvalue().splitlines() if '"call refused"' in line]
    assert len(told) == refused
    for line in told:
        who = Identity.parse(line["peer"])
        assert who.role not in ALLOWED[line["method"].removeprefix(API)].split()
        assert "127.0.0.1" in line["address"]


async def test_what_is_not_a_call_of_the_contract_is_nobody_s(site: Site, tmp_path: Path) -> None:
    async with everybody(site, tmp_path / "other") as channels:
        for role in Role:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channels[role].unary_unary(f"{API}Source/Erase")
            assert await method(b"", timeout=10).code() is grpc.StatusCode.UNIMPLEMENTED
