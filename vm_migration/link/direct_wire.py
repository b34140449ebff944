"""A connected socket that carries a direct stream's bytes, under TLS or, on loopback, without.

One thread may read while another writes. OpenSSL lets one thread at a time work on a connection (openssl-threads(7)),
so under TLS they take turns; nobody waits for the network while it is his turn. Both wait in the kernel and hold no
lock of the interpreter meanwhile, nor while bytes are copied or sealed.
"""

import contextlib
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final, Protocol, TypeVar

Buffer = bytes | bytearray | memoryview
_MOST_BUFFERS: Final = 1024
"""IOV_MAX of Linux."""
_Result = TypeVar("_Result")

_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
    # A barrier must not wait for more to be sent with it.
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
"""A peer that is gone is noticed within 20 s also where nobody listens to it, as on a gRPC channel.

The sizes of the socket's buffers are left to the kernel, which grows them to several MiB; a size that is set ends that,
and is capped by net.core.wmem_max, which is smaller.
"""


class Wire(Protocol):
    """What a direct stream's threads work on: DirectWire, or vm_migration.link.sealed_wire.SealedWire below its TLS."""

    def read_exactly(self, into: memoryview, deadline: float | None = None) -> bool:
        """Fill a buffer; False where the peer had closed the connection before the first byte."""

    def fill(self, places: Sequence[memoryview]) -> None:
        """Fill buffers, one behind the other; of what is made of them here nothing is kept."""

    def write(self, parts: Sequence[Buffer], deadline: float | None = None) -> None:
        """Write a message that is given in parts."""

    def drain(self, deadline: float) -> None:
        """Say that nothing more is written, and read what still comes until the peer closes too, or the deadline."""

    def shut(self) -> None:
        """End the connection; threads that read or write come back with an error or an end at once."""

    def close(self) -> None:
        """Free the socket; no thread may use it any more."""


class DirectWire:
    """Reads and writes whole messages; every deadline is on time.monotonic's clock, None: as long as it takes.

    All of it raises OSError (TimeoutError, ssl.SSLError among its kinds), after which the wire is to be shut.
    """

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected socket; an ssl.SSLSocket has not shaken hands yet."""
        connection.setblocking(False)
        for level, option, value in _KEEPALIVE:
            connection.setsockopt(level, option, value)
        self._connection: Final = connection
        self._secured = isinstance(connection, ssl.SSLSocket)
        self._turn: Final = threading.Lock()

    def leave_tls(self) -> None:
        """Read and write below TLS from here on; neither end may have more to say in it.

        That is so once hands are shaken and no session tickets are sent. OpenSSL reads a record at a time, so that what
        the peer writes below TLS behind its last record was not taken out of the kernel.
        """
        self._secured = False

    def handshake(self, deadline: float) -> None:
        """Agree on keys, and learn who the peer is; nothing is done without TLS."""
        if self._secured and isinstance(self._connection, ssl.SSLSocket):
            self._insist(self._connection.do_handshake, select.POLLIN, deadline)

    def read_exactly(self, into: memoryview, deadline: float | None = None) -> bool:
        """Fill a buffer; False where the peer had closed the connection before the first byte.

        Raises:
            OSError: Closed in the middle, silent at the deadline, or broken.
        """
        got = 0
        while got < len(into):
            count = self._insist(partial(self._receive_into, into[got:]), select.POLLIN, deadline)
            if not count and got:
                raise ConnectionResetError("Closed in the middle of a message")
            if not count:
                return False
            got += count
        return True

    def fill(self, places: Sequence[memoryview]) -> None:
        """Fill buffers, one behind the other; of what is made of them here nothing is kept.

        Raises:
            OSError: The connection broke, or was closed before all were full.
        """
        left = deque(place[:] for place in places if len(place))
        try:
            while left:
                got = self._insist(partial(self._receive, left), select.POLLIN, None)
                if not got:
                    raise ConnectionResetError("Closed in the middle of a message")
                while left and got >= len(left[0]):
                    full = left.popleft()
                    got -= len(full)
                    full.release()
                if got:
                    with left[0] as begun:
                        left[0] = begun[got:]
        finally:
            for each in left:
                each.release()

    def write(self, parts: Sequence[Buffer], deadline: float | None = None) -> None:
        """Write a message that is given in parts; the last one, which is the long one, is not copied here."""
        if self._secured and len(parts) > 2:  # each part is a TLS record of its own, at least
            parts = (b"".join(parts[:-1]), parts[-1])
        left = deque(memoryview(part) for part in parts if len(part))
        while left:
            sent = self._insist(partial(self._send, left), select.POLLOUT, deadline)
            while left and sent >= len(left[0]):
                sent -= len(left.popleft())
            if sent:
                left[0] = left[0][sent:]

    def drain(self, deadline: float) -> None:
        """Say that nothing more is written, and read what still comes until the peer closes too, or the deadline.

        To close at once would reset the connection, and what was written last might be lost with it.
        """
        socket.socket.shutdown(self._connection, socket.SHUT_WR)
        room = memoryview(bytearray(1 << 16))
        while self._insist(partial(socket.socket.recv_into, self._connection, room), select.POLLIN, deadline):
            pass

    def shut(self) -> None:
        """End the connection; threads that read or write come back with an error or an end at once."""
        # Not SSLSocket's own, which also forgets its keys: a reader would take what is sealed for what was said.
        with contextlib.suppress(OSError):  # it has ended already
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the socket; no thread may use it any more."""
        self._connection.close()

    @property
    def connection(self) -> socket.socket:
        """The socket, to be asked about its peer."""
        return self._connection

    def _send(self, left: deque[memoryview]) -> int:
        # Of socket.socket and not the object's own: those of an SSLSocket are TLS's.
        return self._connection.send(left[0]) if self._secured else socket.socket.sendmsg(self._connection, left)

    def _receive(self, left: deque[memoryview]) -> int:
        if self._secured:
            return self._connection.recv_into(left[0])
        return socket.socket.recvmsg_into(self._connection, list(islice(left, _MOST_BUFFERS)))[0]

    def _receive_into(self, into: memoryview) -> int:
        if self._secured:
            return self._connection.recv_into(into)
        return socket.socket.recv_into(self._connection, into)

    def _insist(self, act: Callable[[], _Result], event: int, deadline: float | None) -> _Result:
        while True:
            try:
                if not self._secured:
                    return act()
                with self._turn:
                    return act()
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)
            except BlockingIOError:
                self._wait(event, deadline)

    def _wait(self, event: int, deadline: float | None) -> None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        poll = select.poll()
        poll.register(self._connection, event)
        if not poll.poll(left):
            raise TimeoutError("Nothing came in time")
