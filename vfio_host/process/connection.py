"""Messages over a socket that never blocks: the loop's end of interface/channel.py.

::

    readable --> receive() --> at most one whole message    half a message waits here and costs the loop nothing
    send()   --> as much as the peer takes now --> flush() when writable; nothing is read until all of it is out

Both directions hold one message at most, so a peer that sends without reading, or half a message and no more, takes
neither the loop's time nor memory without bound. The bytes are exactly those of Channel.
"""

import array
import socket
import struct
from typing import Final

from vfio_host.interface.channel import (
    CREDENTIALS,
    MAX_DESCRIPTORS,
    MAX_MESSAGE,
    ChannelClosed,
    MessageTooLarge,
    close_all,
)

_HEADER: Final = struct.Struct("<I")
_SPACE: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4) + socket.CMSG_SPACE(CREDENTIALS.size)


class Connection:
    """One served socket. After a ChannelError it is of no further use: close it.

    `caller` is the process that sent the last message: a descriptor can be passed on, so it is asked for each. A
    connection that was accepted inherits the asking from its listener, or what is sent meanwhile would be nobody's.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.caller = 0
        self._socket: Final = connection
        self._header = bytearray()
        self._body: bytearray | None = None
        self._filled = 0
        self._descriptors: list[int] = []
        self._unsent: list[memoryview] = []
        self._unsent_descriptors: list[int] = []

    def fileno(self) -> int:
        """Return the descriptor, for selectors."""
        return self._socket.fileno()

    @property
    def sending(self) -> bool:
        """Tell whether a part of an answer is still to be sent."""
        return bool(self._unsent)

    def receive(self) -> tuple[bytearray, list[int]] | None:
        """Take what has come; return a message when it is whole, with its descriptors, which the caller now owns.

        Raises:
            ChannelClosed: End of file, or the connection broke.
            MessageTooLarge: The peer announced more than MAX_MESSAGE.
        """
        try:
            if self._body is None and not self._receive_header():
                return None
            return self._receive_body()
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosed(f"Connection broke: {error}") from error

    def send(self, body: bytes, descriptors: list[int]) -> None:
        """Send a message, now or as the peer takes it; the descriptors are given away.

        Raises:
            ChannelClosed: The peer is gone.
        """
        self._unsent = [memoryview(_HEADER.pack(len(body))), memoryview(body)]  # two, so that no megabyte is copied
        self._unsent_descriptors = descriptors
        self.flush()

    def flush(self) -> None:
        """Send as much as the peer takes without waiting.

        Raises:
            ChannelClosed: The peer is gone.
        """
        try:
            while self._unsent:
                rights = array.array("i", self._unsent_descriptors).tobytes()
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
                sent = self._socket.sendmsg(self._unsent, ancillary)
                self._give_away()
                self._unsent = _after(self._unsent, sent)
        except BlockingIOError:
            return
        except OSError as error:
            raise ChannelClosed(f"Peer did not take an answer: {error}") from error

    def close(self) -> None:
        """Close the socket, and every descriptor of a message that was not whole."""
        self._socket.close()
        close_all(self._descriptors)
        self._descriptors = []
        self._give_away()

    def _give_away(self) -> None:
        close_all(self._unsent_descriptors)
        self._unsent_descriptors = []

    def _receive_header(self) -> bool:
        """Take the rest of the header; True when it is whole and the body can come."""
        wanted = _HEADER.size - len(self._header)
        part, ancillary, flags, _ = self._socket.recvmsg(wanted, _SPACE, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                self._descriptors.extend(received)
            elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and len(payload) >= CREDENTIALS.size:
                self.caller = int(CREDENTIALS.unpack_from(payload)[0])
        if not part:
            raise ChannelClosed("Peer closed the connection")
        if flags & socket.MSG_CTRUNC or len(self._descriptors) > MAX_DESCRIPTORS:
            raise MessageTooLarge(f"Peer sent more than {MAX_DESCRIPTORS} descriptors with a message")
        self._header += part
        if len(self._header) < _HEADER.size:
            return False
        (length,) = _HEADER.unpack(self._header)
        if length > MAX_MESSAGE:
            raise MessageTooLarge(f"Peer announced {length} bytes; the limit is {MAX_MESSAGE}")
        self._header.clear()
        self._body, self._filled = bytearray(length), 0
        return True

    def _receive_body(self) -> tuple[bytearray, list[int]] | None:
        body = self._body if self._body is not None else bytearray()
        with memoryview(body) as window:
            while self._filled < len(body):
                count = self._socket.recv_into(window[self._filled :])
                if count == 0:
                    raise ChannelClosed("Peer closed the connection in the middle of a message")
                self._filled += count
        descriptors, self._descriptors, self._body = self._descriptors, [], None
        return body, descriptors


def _after(parts: list[memoryview], sent: int) -> list[memoryview]:
    """Return what is left of parts when so many bytes of them are sent."""
    left = []
    for part in parts:
        if sent < len(part):
            left.append(part[sent:])
        sent = max(0, sent - len(part))
    return left
