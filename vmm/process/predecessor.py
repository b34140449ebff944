"""The process that has a machine which this one takes over: what it sends, and what it is answered."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vfio_host.interface.channel import Channel, ChannelError, close_all, listen, same_user
from vmm.update.documents import EarlyDocument, InvalidHandover, StateDocument, Taken, decode, encode

PATIENCE: Final = 60.0
"""Seconds for the other to begin, and again to hand over: whoever drives the update may have gone."""


class Predecessor:
    """The connection that it made to this process."""

    def __init__(self, listener: socket.socket) -> None:
        """Wait for it.

        Raises:
            InvalidHandover: Nobody came, or another user.
        """
        listener.settimeout(PATIENCE)
        try:
            connection, _ = listener.accept()
        except OSError as error:
            raise InvalidHandover(f"No process hands a machine over: {error}") from error
        if not same_user(connection):
            connection.close()
            raise InvalidHandover("A process of another user would hand a machine over")
        connection.settimeout(PATIENCE)
        self._channel: Final = Channel(connection)

    def receive_early(self) -> tuple[EarlyDocument, list[int]]:
        """Return what there is, and its descriptors, which are this process's now.

        Raises:
            InvalidHandover: It is gone, or what it sent is none.
        """
        body, numbers = self._receive()
        try:
            document = decode(body, EarlyDocument)
            more = numbers
            while more and len(numbers) < len(document.descriptors):
                _, more = self._receive()
                numbers += more
        except InvalidHandover:
            close_all(numbers)
            raise
        return document, numbers  # whether they are all there is judged with the rest

    def receive_state(self) -> StateDocument:
        """Return where the machine stands.

        Raises:
            InvalidHandover: The other has given up, or what it sent is none.
        """
        body, numbers = self._receive()
        close_all(numbers)
        return decode(body, StateDocument)

    def answer(self, refusal: str = "") -> None:
        """Say that all is taken over, or why not.

        Raises:
            InvalidHandover: The other does not hear it, and has its machine back.
        """
        try:
            self._channel.send(encode(Taken(refusal)))
        except ChannelError as error:
            raise InvalidHandover(f"Process that hands over is gone: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _receive(self) -> tuple[bytearray, list[int]]:
        try:
            return self._channel.receive()
        except ChannelError as error:
            raise InvalidHandover(f"Process that hands over is gone: {error}") from error


def wait_at(path: Path, listening: Callable[[], None]) -> Predecessor:
    """Listen at a path, tell that, and wait for the process that hands over; the path is gone when this returns.

    Raises:
        InvalidHandover: Nobody came.
    """
    with listen(path) as listener:
        try:
            listening()
            return Predecessor(listener)
        finally:
            path.unlink(missing_ok=True)
