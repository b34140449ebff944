"""The end of a carried connection that lies on this host: a unix socket to the machine's process."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vm_migration.link.machine_stream.gathering import Gathering

_BUFFER: Final = 1 << 20
_SO_SNDBUFFORCE: Final = 32
"""socket(7); Python has no name for it."""
_FULL_QUEUE: Final = 0.002


class LocalSocket:
    """Reads and writes; one task may do each at a time."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection: Final = connection
        self._coming: Final = Gathering(connection)
        self._loop: Final = asyncio.get_running_loop()

    async def read(self) -> bytes:
        """Return what has come, as soon as anything has; nothing where the process says no more.

        Raises:
            OSError: The connection broke.
        """
        return await self._coming.take()

    async def write(self, piece: bytes) -> None:
        """Write all of a piece; returns when the next one can be given."""
        await self._loop.sock_sendall(self._connection, piece)

    def end(self) -> None:
        """Say no more; what the process says is still read."""
        with contextlib.suppress(OSError):  # it has gone, which whoever reads is told
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection."""
        self._coming.close()
        self._connection.close()


async def connect(path: Path, patience: float) -> LocalSocket:
    """Connect to where a process listens, which is behind every connection that was made before.

    Raises:
        OSError: Nobody listens there.
        TimeoutError: Its queue was full for `patience` seconds.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _widen(connection)
        connection.setblocking(False)
        async with asyncio.timeout(patience):
            while True:
                try:
                    connection.connect(str(path))
                except BlockingIOError:  # its queue is full; asyncio's own connect would take that for connected
                    await asyncio.sleep(_FULL_QUEUE)  # and that it has room tells nobody
                else:
                    return LocalSocket(connection)
    except BaseException:
        connection.close()
        raise


@contextlib.contextmanager
def listening(path: Path, most: int) -> Iterator[socket.socket]:
    """Listen at a path for the length of the context; what an earlier life left there is taken away.

    At the end the path is free, unless somebody else listens there by then.

    Raises:
        OSError: It cannot be listened there.
    """
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.setblocking(False)
        listener.bind(str(path))
        own = path.stat()
        try:
            listener.listen(most)
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):  # taken away, with its folder as it may be
                if os.path.samestat(own, path.stat()):
                    path.unlink()


def _widen(connection: socket.socket) -> None:
    """Have the kernel hold as much of what is written as it lets us; more of it goes in one piece then."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
    except PermissionError:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
