"""MachineStream over gRPC: the destination's half of a machine's own stream.

A call stands for one connection. It is let in as a bulk stream is: a host of the site that is the attempt's source,
with its ticket; each connection once, and in its turn.
"""

import asyncio
from typing import Final, Protocol

import grpc
import grpc.aio

from dest_agent.stream_arrival import StreamArrival
from vm_migration.errors import Unauthorised
from vm_migration.link.identity import peer_identity
from vm_migration.link.machine_stream.opening import CARRY_SERVICE, decode_opening
from vm_migration.link.served import Context

OPENING: Final = 5.0
"""Seconds for a call to name its connection, which is the first that its source says."""


class StreamArrivals(Protocol):
    """Knows what is arriving: dest_agent.agent.DestAgent."""

    def stream_target(self, attempt: str) -> StreamArrival:
        """Return the arrival that a machine's connection names."""


class ServedCall:
    """Implements vm_migration.link.machine_stream.carried.Far over a call that is served."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context

    async def send(self, piece: bytes) -> None:
        """Give a piece; a call that the source has left cancels whoever serves it."""
        await self._context.write(piece)

    async def receive(self) -> bytes | None:
        """Return the next piece; None where the source ended the call."""
        message = await self._context.read()
        return message if isinstance(message, bytes) else None

    async def finish(self) -> None:
        """Do nothing: the call ends well when whoever serves it returns."""


class StreamService:
    """Serves the connections of one agent's arrivals."""

    def __init__(self, arrivals: StreamArrivals, patience: float = OPENING) -> None:
        """`patience`: seconds for which a call may say nothing at all."""
        self._arrivals: Final = arrivals
        self._patience: Final = patience

    async def carry(self, messages: object, context: Context) -> None:
        """Carry one connection; whatever ends it otherwise ends all of its arrival.

        Raises:
            Unauthorised: It names no connection, or none in time, or is not let into it.
            MigrationError: Its arrival failed.
        """
        del messages  # they are read from the context, one at a time
        call = ServedCall(context)
        try:
            async with asyncio.timeout(self._patience):
                first = await call.receive()
        except TimeoutError:
            text = f"The call named no connection within {self._patience:g} s"
            raise Unauthorised("no-stream", text) from None
        if first is None:
            raise Unauthorised("no-stream", "The call ended before it named a connection")
        opening = decode_opening(first)
        arrival = self._arrivals.stream_target(opening.attempt)
        identity = peer_identity(context)
        arrival.require_source(None if identity is None else identity.name)
        await arrival.carry(opening, call)


def add_streams(service: StreamService, server: grpc.aio.Server) -> None:
    """Serve the raw method: identity serializers, because a message is bytes of the connection."""
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(service.carry)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(CARRY_SERVICE, {"Carry": handler}),))
