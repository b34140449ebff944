"""The source's half of a machine's own stream: the connections that its process opens here, opened at the destination.

::

    accepted --opening--> destination connects --opened--> carried; only then the next one is looked at

The kernel accepts for the process meanwhile, and holds what it says.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from vm_migration.errors import AttemptFailed
from vm_migration.link.machine_stream.carried import CarriedConnection, Far
from vm_migration.link.machine_stream.local_socket import LocalSocket, listening
from vm_migration.link.machine_stream.order import StreamRole, role_of

OpenFar = Callable[[StreamRole, int], AbstractAsyncContextManager[Far]]
"""Opens a connection at the destination; entered, it is there."""


class Relay:
    """Carries the connections of one attempt; `said` and `heard` are the bytes so far."""

    def __init__(self, listener: socket.socket, open_far: OpenFar, most: int) -> None:
        self._listener: Final = listener
        self._open_far: Final = open_far
        self._most: Final = most
        self._carried: Final[list[CarriedConnection]] = []
        self._drained: Final = asyncio.Event()

    @property
    def said(self) -> int:
        """Bytes that this host's process said."""
        return sum(each.said_here for each in self._carried)

    @property
    def heard(self) -> int:
        """Bytes that it was told."""
        return sum(each.said_there for each in self._carried)

    async def run(self) -> None:
        """Carry until every connection is over.

        Raises:
            ExceptionGroup: Of MigrationError: one of them broke, and all are closed.
        """
        async with asyncio.TaskGroup() as group:
            for ordinal in range(self._most):
                connection = await self._accepted()
                opened = asyncio.Event()
                group.create_task(self._carry(connection, ordinal, opened), name=f"connection {ordinal}")
                await opened.wait()
            self._listener.close()
        self._drained.set()

    async def drained(self) -> None:
        """Wait until every connection has ended as it should, or as long as the caller likes."""
        await self._drained.wait()

    async def _accepted(self) -> LocalSocket:
        try:
            connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        except OSError as error:
            text = f"What the machine sends cannot be taken: {error.strerror or error}"
            raise AttemptFailed("stream-broken", text, "Look at this host") from None
        return LocalSocket(connection)

    async def _carry(self, local: LocalSocket, ordinal: int, opened: asyncio.Event) -> None:
        role = role_of(ordinal)
        try:
            async with self._open_far(role, ordinal) as far:
                carried = CarriedConnection(local, far, f"{ordinal} ({role.name.lower()})")
                self._carried.append(carried)
                opened.set()
                await carried.run()
        finally:
            local.close()


@asynccontextmanager
async def relay(path: Path, open_far: OpenFar, most: int) -> AsyncIterator[Relay]:
    """Take in what a machine's process says at a path, for the length of the context; the body ends when it breaks.

    Raises:
        AttemptFailed: It cannot be listened there.
        ExceptionGroup: Of what the connections, or the body, failed with.
    """
    try:
        with listening(path, most) as listener:
            carrying = Relay(listener, open_far, most)
            async with asyncio.TaskGroup() as group:
                running = group.create_task(carrying.run(), name="machine's stream")
                yield carrying
                running.cancel()
    except OSError as error:
        text = f"What the machine sends cannot be taken at {path}: {error.strerror or error}"
        raise AttemptFailed("stream-unavailable", text, "Look at this host's run directory") from None
