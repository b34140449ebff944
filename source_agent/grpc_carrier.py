"""A bulk stream over gRPC: one bidirectional call on a channel of its own, whose messages are frames and answers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import grpc
import grpc.aio

from source_agent.bulk_stream import Unsent
from vm_migration.link.status import Metadata, from_rpc_error

BULK_METHOD: Final = "/vm_migration.api.v1.Bulk/Send"


class GrpcCarrier:
    """One call."""

    def __init__(self, channel: grpc.aio.Channel, method: str, metadata: Metadata, peer: str) -> None:
        self._peer: Final = peer
        both: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        self._call: Final = both(metadata=metadata)

    async def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Take a message; its parts are joined, which copies them."""
        try:
            await self._call.write(b"".join(parts))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            if isinstance(error, grpc.aio.AioRpcError) and not _own_guess(error):
                raise from_rpc_error(error, self._peer) from None
            raise Unsent from None

    async def read(self) -> bytes | None:
        """Return the peer's next answer; None where it closed the stream."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            if _own_guess(error):  # a write met the end first: what the peer said of it is lost
                return None
            raise from_rpc_error(error, self._peer) from None
        return message if isinstance(message, bytes) else None

    async def end(self) -> None:
        """Say that no message follows; answers are still read."""
        await self._call.done_writing()

    def cancel(self) -> None:
        """End the call."""
        self._call.cancel()


@asynccontextmanager
async def grpc_carrier(
    channel: grpc.aio.Channel, attempt: str, ticket: bytes, ordinal: int, peer: str
) -> AsyncIterator[GrpcCarrier]:
    """Keep a stream open on a channel that is given away, for the length of the context."""
    async with channel:
        metadata = (
            ("viaduct-attempt", attempt),
            ("viaduct-stream", str(ordinal)),
            ("viaduct-ticket-bin", ticket),
            ("viaduct-progress", "1"),
        )
        carrier = GrpcCarrier(channel, BULK_METHOD, metadata, peer)
        try:
            yield carrier
        finally:
            carrier.cancel()


def _own_guess(error: grpc.aio.AioRpcError) -> bool:
    """Say whether this side made the status up: a write that meets the end of a stream hides what the peer said.

    grpc.aio then sets INTERNAL itself, before the peer's status is read (grpc.aio._call, `_write`).
    """
    return error.code() is grpc.StatusCode.INTERNAL and not error.trailing_metadata()
