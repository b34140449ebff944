"""The source's side of the link to a destination agent: control calls, each with a deadline, and the bulk streams."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from source_agent.bulk_stream import BulkStream, Carrier
from source_agent.direct_carrier import direct_carrier
from source_agent.grpc_carrier import grpc_carrier
from source_agent.own_stream.far_connection import far_connection
from source_agent.pulse import STALL
from source_agent.sequences import SeenSequence
from source_agent.terms import GRPC, SEALED
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.api.v1.destination_pb2_grpc import DestinationStub
from vm_migration.api.v1.machine_pb2_grpc import HostStub
from vm_migration.daemon.host_facts import DIRECT_MACHINE_STREAM, MACHINE_STREAM, TRANSPORT_NOT_OFFERED
from vm_migration.errors import MigrationError, Refused, Unreachable
from vm_migration.link.call import call
from vm_migration.link.channel import OpenChannel, open_channel
from vm_migration.link.direct_hello import Hello
from vm_migration.link.machine_stream.carried import Far
from vm_migration.link.machine_stream.opening import Opening
from vm_migration.link.machine_stream.order import StreamRole
from vm_migration.link.tls import TlsFiles

CONTROL_DEADLINE: Final = 10.0
_OVERTAKEN: Final = 5
"""How often an answer may be overtaken by what its host tells elsewhere: an attempt has hardly more records."""
_SLOW_LINK: Final = 125_000.0
"""Bytes a second of the slowest link on which a round can still be announced."""


class DestinationLink:
    """Control channel and bulk streams of one attempt, open while the context is entered."""

    def __init__(
        self,
        *,
        host: str,
        control: str,
        bulk: str,
        tls: TlsFiles | None,
        attempt: str,
        transport: str = GRPC,
        channels: OpenChannel = open_channel,
        sequence: Callable[[], int] = lambda: 0,
        seen: SeenSequence | None = None,
    ) -> None:
        """Describe the link; `transport` is how the bulk streams travel, to the address `bulk`.

        `sequence` tells where the own journal stands, `seen` what the peer told of its own.
        """
        self.peer: Final = f"{host} ({control})"
        self._host: Final = host
        self._bulk: Final = bulk
        self._tls: Final = tls
        self._attempt: Final = attempt
        self._transport: Final = transport
        self._stack: Final = AsyncExitStack()
        self._channels: Final = channels
        self._control: Final = channels(control, tls, host)
        self._stub: Final = DestinationStub(self._control)
        self._sequence: Final = sequence
        self._seen: Final = SeenSequence() if seen is None else seen

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._control)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def streams(self, ticket: bytes, count: int) -> AsyncIterator[tuple[BulkStream, ...]]:
        """Keep the bulk streams open for the length of the context, each on a connection of its own.

        Somebody listens to each: one that is over or dead ends the context's body, whatever it waits for.

        Raises:
            MigrationError: Another transport was asked for, and the destination offers none or cannot be reached so.
            ExceptionGroup: Of what the streams, or the body, failed with.
        """
        if self._transport != GRPC:
            await self._require_offered()
        async with AsyncExitStack() as stack:
            streams = []
            for ordinal in range(count):
                carrier = await stack.enter_async_context(self._carrier(ticket, ordinal))
                streams.append(BulkStream(carrier, self.peer))
            async with asyncio.TaskGroup() as group:
                listening = [group.create_task(stream.listen(), name="bulk stream's ear") for stream in streams]
                yield tuple(streams)
                for each in listening:
                    each.cancel()

    def _carrier(self, ticket: bytes, ordinal: int) -> AbstractAsyncContextManager[Carrier]:
        if self._transport != GRPC:
            hello = Hello(UUID(self._attempt), ordinal, ticket, sealed=self._transport == SEALED)
            peer = f"{self._host} ({self._bulk}, {self._transport})"
            return direct_carrier(self._bulk, self._tls, self._host, hello, peer)
        channel = self._channels(self._bulk, self._tls, self._host)
        return grpc_carrier(channel, self._attempt, ticket, ordinal, self.peer)

    def connection(self, ticket: bytes, role: StreamRole, ordinal: int) -> AbstractAsyncContextManager[Far]:
        """Keep a connection of a machine's own stream open for the length of the context; entered, it is there.

        Raises:
            MigrationError: It could not be opened.
        """
        channel = self._channels(self._bulk, self._tls, self._host)
        return far_connection(channel, Opening(self._attempt, ticket, role, ordinal), self.peer)

    async def require_streams_of_machines(self, *, direct: bool = False) -> None:
        """Check that the destination takes in machines that send their own stream, by themselves if they are to.

        Raises:
            Refused: It is of a version that does not.
            MigrationError: It does not say.
        """
        offered = await self._features()
        if MACHINE_STREAM not in offered:
            text = f"{self.peer} takes in no machine that sends its own stream"
            raise Refused("stream-not-offered", text, "Update that host")
        if direct and DIRECT_MACHINE_STREAM not in offered:
            text = f"{self.peer} takes in no machine's own stream but what its agents carry"
            raise Refused(TRANSPORT_NOT_OFFERED, text, "Use --transport grpc, or give that host [tls], or update it")

    async def _require_offered(self) -> None:
        if self._transport not in await self._features():
            text = f"{self.peer} takes no {self._transport} streams in"
            raise Refused(TRANSPORT_NOT_OFFERED, text, "Use --transport grpc, or update that host")

    async def features(self) -> frozenset[str]:
        """Return what the destination offers beside the least; nothing where it does not say."""
        try:
            return await self._features()
        except MigrationError:
            return frozenset()

    async def _features(self) -> frozenset[str]:
        facts = await call(HostStub(self._control).DescribeHost, types_pb2.Empty(), peer=self.peer, deadline=STALL)
        return frozenset(facts.features)

    async def open_round(self, request: destination_pb2.OpenRoundRequest) -> None:
        """Announce a round's pages."""
        request.key.sequence = self._sequence()
        deadline = STALL + len(request.bitmap) / _SLOW_LINK
        await call(self._stub.OpenRound, request, peer=self.peer, deadline=deadline)

    async def finish(self, request: destination_pb2.FinishRequest, deadline: float) -> destination_pb2.FinishResponse:
        """Have the destination load and verify."""
        request.key.sequence = self._sequence()
        return await call(self._stub.Finish, request, peer=self.peer, deadline=deadline)

    async def listen_for_stream(
        self, request: destination_pb2.ListenForStreamRequest
    ) -> destination_pb2.ListenForStreamResponse:
        """Have the machine's process there listen for this host's."""
        request.key.sequence = self._sequence()
        return await call(self._stub.ListenForStream, request, peer=self.peer, deadline=CONTROL_DEADLINE)

    async def handoff(self, request: destination_pb2.HandoffRequest) -> destination_pb2.HandoffResponse:
        """Give the secret away."""
        request.key.sequence = self._sequence()
        return await call(self._stub.Handoff, request, peer=self.peer, deadline=CONTROL_DEADLINE)

    async def describe(
        self, request: destination_pb2.DescribeIncomingRequest, deadline: float = CONTROL_DEADLINE
    ) -> destination_pb2.IncomingReport:
        """Ask what the destination's journal says, once more where it has told of a newer record meanwhile.

        Raises:
            Unreachable: It does not answer, or is each time overtaken by what it tells elsewhere.
        """
        for _ in range(_OVERTAKEN):
            request.key.sequence = self._sequence()
            report, newest = await self._heard(
                call(self._stub.DescribeIncoming, request, peer=self.peer, deadline=deadline)
            )
            if newest:
                return report
        raise Unreachable("overtaken", f"{self.peer} told of newer records each time that it was asked for its newest")

    async def discard(self, request: destination_pb2.DiscardRequest) -> None:
        """Prove to the destination that the attempt ended here."""
        request.key.sequence = self._sequence()
        await self._heard(call(self._stub.Discard, request, peer=self.peer, deadline=CONTROL_DEADLINE))

    async def note_retired(self, request: destination_pb2.NoteRetiredRequest) -> None:
        """Tell the new owner that this host has retired its copy."""
        request.key.sequence = self._sequence()
        await self._heard(call(self._stub.NoteRetired, request, peer=self.peer, deadline=CONTROL_DEADLINE))

    async def _heard(
        self, asking: Coroutine[object, object, destination_pb2.IncomingReport]
    ) -> tuple[destination_pb2.IncomingReport, bool]:
        """Return a report of a journal that was not rolled back, and whether it is the newest that was heard.

        Raises:
            Stale: It was.
        """
        since = self._seen.highest
        report = await asking
        return report, self._seen.note(report.sequence, self.peer, since=since)
