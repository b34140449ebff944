"""The process that is to have this machine: what is sent to it, and what it answers.

::

    offer       connect, early document and descriptors     the guest runs on; the other assembles itself meanwhile
    hand_over   state document, and its answer              the guest stands still
"""

from pathlib import Path
from typing import Final

import msgspec

from vfio_host.interface.channel import MAX_DESCRIPTORS, MAX_MESSAGE, Channel, ChannelError, connect
from vmm.update.documents import EarlyDocument, StateDocument, Taken, encode

DEADLINE: Final = 10.0
"""Seconds for what is sent while the guest runs."""
_answer: Final = msgspec.msgpack.Decoder(Taken)


class NotTakenOver(Exception):
    """The other process did not take the machine over, or does not say so: this one has it as before."""


class Unanswered(NotTakenOver):
    """The other process is silent: it may be at it still, and find only at its end that nobody hears it."""


class Successor:
    """A connection to the process that waits to take over; closing it makes that process give up."""

    def __init__(self, path: Path, document: EarlyDocument, descriptors: tuple[int, ...]) -> None:
        """Connect, and tell what there is; descriptors are duplicated into the other process.

        Raises:
            NotTakenOver: Nobody waits there.
        """
        try:
            self._channel: Final[Channel] = connect(path, DEADLINE)
            self._channel.send(encode(document), descriptors[:MAX_DESCRIPTORS])
            for first in range(MAX_DESCRIPTORS, len(descriptors), MAX_DESCRIPTORS):
                self._channel.send(b"", descriptors[first : first + MAX_DESCRIPTORS])
        except ChannelError as error:
            raise NotTakenOver(f"No process takes the machine over at {path}: {error}") from error

    def hand_over(self, state: StateDocument, patience: float) -> None:
        """Send where the machine stands, and wait for so many seconds until the other has taken it over.

        Raises:
            Unanswered: It does not say whether it has.
            NotTakenOver: It has not. It runs nothing before it is told to in either case.
        """
        body = encode(state)
        if len(body) > MAX_MESSAGE:
            raise NotTakenOver(f"State of {len(body)} bytes is more than a message takes, {MAX_MESSAGE}")
        try:
            self._channel.set_deadline(patience)
            self._channel.send(body)
            taken = _answer.decode(self._channel.receive()[0])
        except (ChannelError, msgspec.DecodeError) as error:
            raise Unanswered(f"The process that takes over does not answer: {error}") from error
        if taken.refusal:
            raise NotTakenOver(f"The process that takes over refused: {taken.refusal}")

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
