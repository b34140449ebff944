"""What comes over a connection, gathered while whoever takes it away is busy: much comes in few and great pieces.

::

    nobody waits     what comes is gathered, up to PIECE bytes; then the process that says more has to wait
    somebody waits   he is given what comes, at once

A unix socket holds a fifth of a piece. Who read no more than that at a time would pay for five messages instead of one,
and the process would stand still whenever a message is being written.
"""

import asyncio
import socket
from typing import Final

PIECE: Final = 1 << 20
"""Bytes, at most."""


class Gathering:
    """Gathers from a connection that does not block, from the first `take` until `close`; one task may take."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection: Final = connection
        self._loop: Final = asyncio.get_running_loop()
        self._room: Final = memoryview(bytearray(PIECE))
        self._filled = 0
        self._listens = False
        self._over = False
        self._broken: OSError | None = None
        self._something: Final = asyncio.Event()

    async def take(self) -> bytes:
        """Return what has come since the last time, as soon as anything has; nothing where the process says no more.

        Raises:
            OSError: The connection broke; what came before that was returned.
        """
        self._gather()
        await self._something.wait()
        piece = bytes(self._room[: self._filled])
        self._filled = 0
        if not self._over:
            self._something.clear()
            self._listen()
        elif not piece and self._broken is not None:
            raise self._broken
        return piece

    def close(self) -> None:
        """Gather no more; the connection is the caller's to close."""
        self._over = True
        self._rest()

    def _gather(self) -> None:
        try:
            while self._filled < PIECE and not self._over:
                came = self._connection.recv_into(self._room[self._filled :])
                self._filled += came
                self._over = not came
        except BlockingIOError:
            self._listen()
        except OSError as error:
            self._broken, self._over = error, True
            self._rest()
        else:
            self._rest()
        if self._filled or self._over:
            self._something.set()

    def _listen(self) -> None:
        if not self._listens:
            self._loop.add_reader(self._connection, self._gather)
            self._listens = True

    def _rest(self) -> None:
        if self._listens:
            self._loop.remove_reader(self._connection)
            self._listens = False
