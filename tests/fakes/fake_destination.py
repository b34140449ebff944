"""A destination agent of another host, as its peers see it: answers that a test has laid out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc.aio

from source_agent.destination_link import DestinationLink
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.api.v1.destination_pb2_grpc import DestinationServicer, add_DestinationServicer_to_server
from vm_migration.errors import Unreachable
from vm_migration.link.served import Context
from vm_migration.link.server import AgentServer, Service

_Outcome = str | Exception


@dataclass
class FakeDestination(DestinationServicer):
    """`handoffs`, `discards` and `notes` are what the next calls come to; the last of them comes for ever.

    What a handover does not ask for is not implemented, and says so.
    """

    report: destination_pb2.IncomingReport | Exception | None = None
    first_reports: list[destination_pb2.IncomingReport] = field(default_factory=list)
    """What is told before that, once each."""
    handoffs: list[_Outcome] = field(default_factory=list)
    discards: list[_Outcome] = field(default_factory=list)
    notes: list[_Outcome] = field(default_factory=list)
    after_discard: destination_pb2.IncomingReport | None = None
    secrets: list[bytes] = field(default_factory=list)
    proofs: list[str] = field(default_factory=list)
    retired: int = 0
    address: str = ""

    async def CheckIncoming(
        self, request: destination_pb2.CheckIncomingRequest, context: Context
    ) -> destination_pb2.CheckIncomingResponse:
        raise NotImplementedError  # nobody asks it where this fake stands

    async def Prepare(
        self, request: destination_pb2.PrepareRequest, context: Context
    ) -> destination_pb2.PrepareResponse:
        raise NotImplementedError  # nobody asks it where this fake stands

    async def ListenForStream(
        self, request: destination_pb2.ListenForStreamRequest, context: Context
    ) -> destination_pb2.ListenForStreamResponse:
        raise NotImplementedError  # nobody asks it where this fake stands

    async def OpenRound(self, request: destination_pb2.OpenRoundRequest, context: Context) -> types_pb2.Empty:
        raise NotImplementedError  # nobody asks it where this fake stands

    async def Finish(self, request: destination_pb2.FinishRequest, context: Context) -> destination_pb2.FinishResponse:
        raise NotImplementedError  # nobody asks it where this fake stands

    async def DescribeIncoming(
        self, request: destination_pb2.DescribeIncomingRequest, context: Context
    ) -> destination_pb2.IncomingReport:
        del request, context
        if self.first_reports:
            return self.first_reports.pop(0)
        if self.report is None:
            raise Unreachable("silent", "Nothing is known")
        if isinstance(self.report, Exception):
            raise self.report
        return self.report

    async def Handoff(
        self, request: destination_pb2.HandoffRequest, context: Context
    ) -> destination_pb2.HandoffResponse:
        del context
        self.secrets.append(request.secret)
        return destination_pb2.HandoffResponse(state=_next(self.handoffs), boot_id="elsewhere", activate_ms=2.0)

    async def Discard(
        self, request: destination_pb2.DiscardRequest, context: Context
    ) -> destination_pb2.IncomingReport:
        del context
        self.proofs.append(request.proof_state)
        state = _next(self.discards)
        self.report = self.after_discard or self.report
        return destination_pb2.IncomingReport(state=state)

    async def Recover(self, request: types_pb2.MachineName, context: Context) -> destination_pb2.IncomingReport:
        raise AssertionError("Not asked here")

    async def Take(self, request: types_pb2.TakeRequest, context: Context) -> destination_pb2.IncomingReport:
        raise AssertionError("Not asked here")

    async def NoteRetired(
        self, request: destination_pb2.NoteRetiredRequest, context: Context
    ) -> destination_pb2.IncomingReport:
        del request, context
        self.retired += 1
        return destination_pb2.IncomingReport(state=_next(self.notes))

    def link(self, attempt: str) -> DestinationLink:
        """Return a link to it."""
        return DestinationLink(host="host-b", control=self.address, bulk=self.address, tls=None, attempt=attempt)


def _next(outcomes: list[_Outcome]) -> str:
    outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0] if outcomes else ""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@asynccontextmanager
async def served(destination: FakeDestination) -> AsyncIterator[FakeDestination]:
    """Serve it on loopback."""

    def register(server: grpc.aio.Server) -> None:
        add_DestinationServicer_to_server(destination, server)

    service = Service("vm_migration.api.v1.Destination", register)
    async with AgentServer("127.0.0.1:0", None, [service], grace=0.0) as server:
        destination.address = server.address
        yield destination
