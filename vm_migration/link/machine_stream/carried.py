"""One connection that is carried, at either host: pieces both ways until both directions have ended."""

import asyncio
from typing import Final, Protocol

from vm_migration.errors import AttemptFailed
from vm_migration.link.machine_stream.half_close import HalfClose, Side, StreamBroken
from vm_migration.link.machine_stream.local_socket import LocalSocket

END: Final = b""
"""The piece that says that no more follows."""


class Far(Protocol):
    """The call that carries a connection, as seen from one of its ends."""

    async def send(self, piece: bytes) -> None:
        """Give a piece; returns when the next one can be given.

        Raises:
            MigrationError: The call is over.
        """

    async def receive(self) -> bytes | None:
        """Return the next piece; None where the call ended.

        Raises:
            MigrationError: It ended with an error.
        """

    async def finish(self) -> None:
        """See the call end well, now that both directions have.

        Raises:
            MigrationError: It did not.
        """


class CarriedConnection:
    """`run` carries it; the counts are bytes of pieces so far."""

    def __init__(self, local: LocalSocket, far: Far, name: str) -> None:
        """`name` tells people which one it is."""
        self.said_here = 0
        self.said_there = 0
        self._local: Final = local
        self._far: Final = far
        self._name: Final = name
        self._ends = HalfClose()

    async def run(self) -> None:
        """Carry until both directions have ended; its socket is closed in any case.

        Raises:
            MigrationError: It broke.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._outwards(), name=f"{self._name} outwards")
                group.create_task(self._inwards(), name=f"{self._name} inwards")
            self._ends.require_over()
            await self._far.finish()
        except BaseExceptionGroup as group:
            raise _first(group, self._name) from None
        finally:
            self._local.close()

    async def _outwards(self) -> None:
        while True:
            piece = await self._local.read()
            self._ends = self._ends.heard(Side.HERE, piece)
            await self._far.send(piece)
            self.said_here += len(piece)
            if piece == END:
                return

    async def _inwards(self) -> None:
        coming = self._coming()
        try:
            while (piece := self._heard_there(await coming)) != END:
                coming = self._coming()  # while this one is written
                await self._local.write(piece)
                self.said_there += len(piece)
            self._local.end()
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)  # what it failed with is an echo

    def _coming(self) -> "asyncio.Task[bytes | None]":
        return asyncio.create_task(self._far.receive(), name=f"{self._name} ahead")

    def _heard_there(self, piece: bytes | None) -> bytes:
        if piece is None:
            raise StreamBroken("The other host ended the call before its end was heard")
        self._ends = self._ends.heard(Side.THERE, piece)
        return piece


def _first(group: BaseExceptionGroup[BaseException], name: str) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, StreamBroken | OSError):
        return AttemptFailed("stream-broken", f"Connection {name} broke: {error}", "Look at both machines' logs")
    return error
