"""Messages with file descriptors over a stream socket.

::

    +----------------+----------------------+
    | length, u32 LE | MessagePack document |      descriptors ride on the first byte (SCM_RIGHTS)
    +----------------+----------------------+

A message arrives whole or not at all: a peer that dies in the middle is an end of file, never half a document.
Both processes of a machine speak it: the ioctls of `vfio_host` and the control socket of `vmm`.
"""

import array
import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

MAX_MESSAGE: Final = 64 << 20
MAX_DESCRIPTORS: Final = 32
_HEADER: Final = struct.Struct("<I")
CREDENTIALS: Final = struct.Struct("=iII")
"""struct ucred: process, user, group."""


class ChannelError(Exception):
    """The root of this module's errors.

    ::

        ChannelError
        +-- ChannelClosed     the peer is gone; nothing more will come
        +-- MessageTooLarge   a length no honest peer announces
    """


class ChannelClosed(ChannelError):
    """The peer closed its end, died, or did not answer in time."""


class MessageTooLarge(ChannelError):
    """A message is longer than MAX_MESSAGE."""


class Channel:
    """One end of a connected stream socket.

    Every operation has the socket's own timeout as its deadline. After any ChannelError the channel is of no
    further use: close it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def fileno(self) -> int:
        """Return the descriptor, for selectors."""
        return self._socket.fileno()

    def set_deadline(self, seconds: float | None) -> None:
        """Bound every later operation; None blocks for ever."""
        self._socket.settimeout(seconds)

    def send(self, body: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send one message; the descriptors are duplicated into the peer and stay open here.

        Raises:
            MessageTooLarge: Nothing was sent.
            ChannelClosed: The peer is gone or too slow; it may have seen a part.
        """
        if len(body) > MAX_MESSAGE:
            raise MessageTooLarge(f"Message of {len(body)} bytes is over the limit of {MAX_MESSAGE}")
        ancillary = []
        if descriptors:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
        header = _HEADER.pack(len(body))
        try:
            sent = self._socket.sendmsg([header, body], ancillary)  # two parts, so that megabytes are not copied
            if sent < len(header):
                self._socket.sendall(header[sent:])
            rest = memoryview(body)[max(0, sent - len(header)) :]
            if rest:  # sending nothing fails too where the peer has read everything and is gone
                self._socket.sendall(rest)
        except OSError as error:
            raise ChannelClosed(f"Peer did not take a message: {error}") from error

    def receive(self) -> tuple[bytearray, list[int]]:
        """Return the next message and the descriptors that came with it, which the caller now owns.

        Raises:
            ChannelClosed: End of file or deadline, also in the middle of a message.
            MessageTooLarge: The peer announced more than MAX_MESSAGE.
        """
        descriptors: list[int] = []
        try:
            header = self._receive_header(descriptors)
            (length,) = _HEADER.unpack(header)
            if length > MAX_MESSAGE:
                raise MessageTooLarge(f"Peer announced {length} bytes; the limit is {MAX_MESSAGE}")
            return self._receive_exactly(length), descriptors
        except OSError as error:
            close_all(descriptors)
            raise ChannelClosed(f"Peer did not send a message: {error}") from error
        except ChannelError:
            close_all(descriptors)
            raise

    def close(self) -> None:
        """Close this end; the peer sees an end of file once no copy of the descriptor is left."""
        self._socket.close()

    def detach(self) -> int:
        """Give the descriptor away; the channel is of no further use."""
        return self._socket.detach()

    def _receive_header(self, descriptors: list[int]) -> bytes:
        header = bytearray()
        space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
        while len(header) < _HEADER.size:
            part, ancillary, _, _ = self._socket.recvmsg(_HEADER.size - len(header), space, socket.MSG_CMSG_CLOEXEC)
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received = array.array("i")
                    received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                    descriptors.extend(received)
            if not part:
                raise ChannelClosed("Peer closed the connection")
            header += part
        return bytes(header)

    def _receive_exactly(self, length: int) -> bytearray:
        body = bytearray(length)
        view, got = memoryview(body), 0
        while got < length:
            part = self._socket.recv_into(view[got:])
            if part == 0:
                raise ChannelClosed("Peer closed the connection in the middle of a message")
            got += part
        return body


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors; one that is closed already is passed over."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Yield a name of a socket's path that fits the 108 bytes of an address, however deep the folder lies."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def connect(path: Path, deadline: float) -> Channel:
    """Connect to the listening socket at a path; the deadline, in seconds, holds for every later operation too.

    Raises:
        ChannelClosed: Nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(deadline)
    try:
        with reachable(path) as name:
            connection.connect(name)
    except OSError as error:
        connection.close()
        raise ChannelClosed(f"Nobody listens at {path}: {error}") from error
    return Channel(connection)


def same_user(connection: socket.socket) -> bool:
    """Tell whether the peer of a local connection runs as this process's user, or as root (SO_PEERCRED, unix(7))."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    _, user, _ = CREDENTIALS.unpack(credentials)
    return user in (0, os.geteuid())


def listen(path: Path, backlog: int = 16) -> socket.socket:
    """Return a non-blocking listening socket at a path, which only this user can reach; a stale one is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with reachable(path) as name:
        listener.bind(name)
    path.chmod(0o600)
    listener.listen(backlog)
    listener.setblocking(False)
    return listener


@contextlib.contextmanager
def listening_at(path: Path) -> Iterator[socket.socket]:
    """Yield what `listen` returns; afterwards its socket at the path is gone, what another process put there is not.

    Raises:
        OSError: It cannot be had.
    """
    with listen(path) as listener:
        own = path.stat().st_ino  # nobody else's as long as this is open
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == own:
                    path.unlink()
