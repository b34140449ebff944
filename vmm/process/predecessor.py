"""The process that has a machine which this one takes over: what it sends, and what it is answered."""

import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vfio_host.interface.channel import Channel, ChannelError, close_all, listening_at, same_user
from vmm.update.documents import EarlyDocument, InvalidHandover, StateDocument, Taken, decode, encode

PATIENCE: Final = 60.0
"""Seconds for the other to begin, and again to hand over: whoever drives the update may have gone."""


class Predecessor:
    """The connection that it made to this process."""

    def __init__(self, listener: socket.socket, starter: int | None = None) -> None:
        """Wait for it; `starter` is a pipe that ends with whoever started this process, and this with it.

        Raises:
            InvalidHandover: Nobody came, or another user, or whoever started this is gone.
        """
        self._starter: Final = starter
        self._wait_for(listener.fileno())
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
            InvalidHandover: It is gone, or who started this, or what it sent is none.
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
            InvalidHandover: The other has given up, or who started this is gone, or what it sent is none.
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

    def _wait_for(self, descriptor: int) -> None:
        watched = select.poll()
        watched.register(descriptor, select.POLLIN)
        if self._starter is not None:
            watched.register(self._starter, 0)  # its end is told all the same; a word on it is for later
        found = dict(watched.poll(PATIENCE * 1000))
        if self._starter in found:
            raise InvalidHandover("Whoever started this process was gone before it had the machine")
        if not found:
            raise InvalidHandover(f"No process hands a machine over: nothing came in {PATIENCE:g} s")

    def _receive(self) -> tuple[bytearray, list[int]]:
        self._wait_for(self._channel.fileno())
        try:
            return self._channel.receive()
        except ChannelError as error:
            raise InvalidHandover(f"Process that hands over is gone: {error}") from error


def wait_at(path: Path, listening: Callable[[], None], starter: int | None = None) -> Predecessor:
    """Listen at a path, tell that, and wait for the process that hands over; its socket there is gone afterwards.

    Raises:
        InvalidHandover: Nobody came, or whoever started this is gone, of whom `starter` is a pipe.
    """
    with listening_at(path) as listener:
        listening()
        return Predecessor(listener, starter)
