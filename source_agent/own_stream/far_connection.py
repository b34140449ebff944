"""A connection of a machine's own stream, as its source opens it at the destination: one call, on its own channel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc.aio

from source_agent.bulk_stream import Unsent
from source_agent.grpc_carrier import GrpcCarrier
from source_agent.pulse import STALL
from vm_migration.errors import AttemptFailed
from vm_migration.link.machine_stream.opening import CARRY_METHOD, Opening, encode_opening


class FarConnection:
    """Implements vm_migration.link.machine_stream.carried.Far over a call."""

    def __init__(self, carrier: GrpcCarrier, peer: str) -> None:
        self._carrier: Final = carrier
        self._peer: Final = peer

    async def send(self, piece: bytes) -> None:
        """Give a piece."""
        try:
            await self._carrier.write((piece,))
        except Unsent:
            raise self._closed() from None

    async def receive(self) -> bytes | None:
        """Return the next piece; None where the call ended."""
        return await self._carrier.read()

    async def finish(self) -> None:
        """Say that no message follows, and see the call end well."""
        await self._carrier.end()
        if await self._answer("end the machine's stream") is not None:
            raise AttemptFailed("bad-answer", f"{self._peer} said something behind its end", "Look at its log")

    async def opened(self, opening: Opening) -> None:
        """Open it, and wait until its other end is there.

        Raises:
            MigrationError: The destination refuses it, or its machine's process does not listen.
        """
        await self.send(encode_opening(opening))
        if await self._answer(f"open connection {opening.ordinal} of the machine's stream") is None:
            raise self._closed()

    async def _answer(self, what: str) -> bytes | None:
        try:
            async with asyncio.timeout(STALL):
                return await self._carrier.read()
        except TimeoutError:
            text = f"{self._peer} did not {what} in {STALL:g} s"
            raise AttemptFailed("stream-stalled", text, "Look at the link and at the other host") from None

    def _closed(self) -> AttemptFailed:
        return AttemptFailed("stream-closed", f"{self._peer} closed the machine's stream", "Look at its log")


@asynccontextmanager
async def far_connection(channel: grpc.aio.Channel, opening: Opening, peer: str) -> AsyncIterator[FarConnection]:
    """Have a connection open on a channel that is given away, for the length of the context.

    Raises:
        MigrationError: It could not be opened.
    """
    async with channel:
        carrier = GrpcCarrier(channel, CARRY_METHOD, (), peer)
        try:
            connection = FarConnection(carrier, peer)
            await connection.opened(opening)
            yield connection
        finally:
            carrier.cancel()
