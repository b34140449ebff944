"""Messages over a stream socket."""

import socket
from collections.abc import Iterable

from typing_extensions import Buffer

from vfio_host.interface.channel import Channel


class _LeavesWhenTold(socket.socket):
    """A socket whose peer reads what it was sent at once, and is gone then."""

    peer: socket.socket
    taken = b""

    def sendmsg(self, buffers: Iterable[Buffer], *arguments: object) -> int:
        sent = super().sendmsg(buffers)
        self.taken = self.peer.recv(sent)
        self.peer.close()
        return sent


def test_a_message_that_ended_its_peer_was_sent() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with _LeavesWhenTold(fileno=ours.detach()) as connection:
        connection.peer = theirs
        Channel(connection).send(b"end")
        assert connection.taken == b"\x03\0\0\0end"
