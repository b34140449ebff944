"""The source's side of the link to a destination agent: control calls, and the bulk streams.

Every call has a deadline; a bulk stream on which nothing moves for STALL seconds fails the attempt, because a cable
that was pulled closes nothing.
"""

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

import grpc
import grpc.aio

from vm_migration.api.v1 import destination_pb2
from vm_migration.api.v1.destination_pb2_grpc import DestinationStub
from vm_migration.errors import AttemptFailed
from vm_migration.link.call import call
from vm_migration.link.channel import OpenChannel, open_channel
from vm_migration.link.status import from_rpc_error
from vm_migration.link.tls import TlsFiles
from vm_migration.transfer.frames import Ack, Frame
from vm_migration.wire.ack import decode_ack
from vm_migration.wire.errors import WireError
from vm_migration.wire.frame import encode

CONTROL_DEADLINE: Final = 10.0
STALL: Final = 5.0
BULK_METHOD: Final = "/vm_migration.api.v1.Bulk/Send"


class BulkStream:
    """One stream of frames, on a channel of its own."""

    def __init__(self, channel: grpc.aio.Channel, attempt: str, ticket: bytes, ordinal: int, peer: str) -> None:
        self._peer: Final = peer
        metadata = (
            ("viaduct-attempt", attempt),
            ("viaduct-stream", str(ordinal)),
            ("viaduct-ticket-bin", ticket),
        )
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(BULK_METHOD)
        self._call: Final = method(metadata=metadata)
        self._reading: Final = asyncio.Lock()
        self.wire_bytes = 0

    async def send(self, frame: Frame) -> None:
        """Send one frame.

        Raises:
            MigrationError: The stream is over.
        """
        message = encode(frame)
        try:
            async with asyncio.timeout(STALL):
                await self._call.write(message)
        except TimeoutError:
            raise self._stalled() from None
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            raise await self._end(error) from None
        self.wire_bytes += len(message)

    async def answer(self, longest: float) -> Ack:
        """Return the next acknowledgement, for which so many seconds are allowed.

        Raises:
            MigrationError: The stream is over.
        """
        try:
            async with asyncio.timeout(longest), self._reading:
                message = await self._call.read()
        except TimeoutError:
            raise self._stalled() from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self._peer) from None
        if not isinstance(message, bytes):
            raise await self._end(None)
        try:
            return decode_ack(message)
        except WireError as error:
            raise AttemptFailed("bad-answer", f"{self._peer} answered with no acknowledgement: {error}") from error

    def cancel(self) -> None:
        """End the stream."""
        self._call.cancel()

    def _stalled(self) -> AttemptFailed:
        self._call.cancel()
        return AttemptFailed("stream-stalled", f"Bulk stream to {self._peer} did not move", "Look at the link")

    async def _end(self, error: Exception | None) -> Exception:
        if isinstance(error, grpc.aio.AioRpcError) and not _own_guess(error):
            return from_rpc_error(error, self._peer)
        try:
            async with asyncio.timeout(STALL), self._reading:  # one read at a time: an answer may be waited for
                await self._call.read()
        except grpc.aio.AioRpcError as ended:
            if not _own_guess(ended):
                return from_rpc_error(ended, self._peer)
        except (TimeoutError, asyncio.InvalidStateError, grpc.aio.UsageError):
            pass
        return AttemptFailed("stream-closed", f"{self._peer} closed the bulk stream", "Look at its log")


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
        channels: OpenChannel = open_channel,
    ) -> None:
        self.peer: Final = f"{host} ({control})"
        self._host: Final = host
        self._bulk: Final = bulk
        self._tls: Final = tls
        self._attempt: Final = attempt
        self._stack: Final = AsyncExitStack()
        self._channels: Final = channels
        self._control: Final = channels(control, tls, host)
        self._stub: Final = DestinationStub(self._control)

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._control)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def open_streams(self, ticket: bytes, count: int) -> tuple[BulkStream, ...]:
        """Open the bulk streams, each on a channel of its own."""
        streams = []
        for ordinal in range(count):
            channel = await self._stack.enter_async_context(self._channels(self._bulk, self._tls, self._host))
            stream = BulkStream(channel, self._attempt, ticket, ordinal, self.peer)
            self._stack.callback(stream.cancel)
            streams.append(stream)
        return tuple(streams)

    async def open_round(self, request: destination_pb2.OpenRoundRequest) -> None:
        """Announce a round's pages."""
        await call(self._stub.OpenRound, request, peer=self.peer, deadline=CONTROL_DEADLINE)

    async def finish(self, request: destination_pb2.FinishRequest, deadline: float) -> destination_pb2.FinishResponse:
        """Have the destination load and verify."""
        return await call(self._stub.Finish, request, peer=self.peer, deadline=deadline)

    async def handoff(self, request: destination_pb2.HandoffRequest) -> destination_pb2.HandoffResponse:
        """Give the secret away."""
        return await call(self._stub.Handoff, request, peer=self.peer, deadline=CONTROL_DEADLINE)

    async def describe(self, request: destination_pb2.DescribeIncomingRequest) -> destination_pb2.IncomingReport:
        """Ask what the destination's journal says."""
        return await call(self._stub.DescribeIncoming, request, peer=self.peer, deadline=CONTROL_DEADLINE)

    async def discard(self, request: destination_pb2.DiscardRequest) -> destination_pb2.IncomingReport:
        """Prove to the destination that the attempt ended here."""
        return await call(self._stub.Discard, request, peer=self.peer, deadline=CONTROL_DEADLINE)

    async def note_retired(self, request: destination_pb2.NoteRetiredRequest) -> destination_pb2.IncomingReport:
        """Tell the new owner that this host has retired its copy."""
        return await call(self._stub.NoteRetired, request, peer=self.peer, deadline=CONTROL_DEADLINE)


def _own_guess(error: grpc.aio.AioRpcError) -> bool:
    """Say whether this side made the status up: a write that meets the end of a stream hides what the peer said.

    grpc.aio then sets INTERNAL itself, before the peer's status is read (grpc.aio._call, `_write`).
    """
    return error.code() is grpc.StatusCode.INTERNAL and not error.trailing_metadata()
