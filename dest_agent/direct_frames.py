"""What a thread does with the frames of one direct stream, until the loop is needed.

::

    header -> digest-summed pages: head -> places in RAM -> data read to there -> digests compared
          '-> every other frame:   all of it -> applied -> an answer, or device state to pass on: back to the loop

Frames come and are applied one after the other here, while the kernel takes the next ones in; streams have a thread
each. So nothing of a page passes through memory of Python's, and nothing of the hot path through the loop.
"""

from dataclasses import dataclass
from typing import Protocol

from vm_migration.errors import AttemptFailed
from vm_migration.link.direct_wire import Wire
from vm_migration.link.sealing import NotSealed
from vm_migration.transfer.frames import Ack, PagesToCome
from vm_migration.wire.errors import WireError
from vm_migration.wire.frame import HEADER_BYTES, Kind, decode_head, head_length, payload_length


class FrameTaker(Protocol):
    """What takes frames on any thread: dest_agent.incoming_attempt.IncomingAttempt."""

    def apply(self, message: bytes | memoryview, stream: int) -> Ack | None:
        """Take one message; of frames of pages nothing is kept."""

    def expect(self, coming: PagesToCome, stream: int) -> list[memoryview]:
        """Return where data that are still to be read belong; the caller releases the views."""

    def arrived(self, coming: PagesToCome, stream: int) -> None:
        """Take a frame whose data are there."""

    def wants_loop(self, stream: int) -> bool:
        """Say whether device state that came is to be passed on, which the loop does."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the thread came back."""

    answer: Ack | None = None
    """What is to be answered once the devices' state is passed on."""
    ended: bool = False
    """The peer ended the stream."""


def take_frames(wire: Wire, taker: FrameTaker, stream: int, room: memoryview) -> Stop:
    """Take a stream's frames until one asks for an answer, brings device state that is worth a message, or it ends.

    Args:
        wire: The connection.
        taker: The arrival.
        stream: The stream's ordinal.
        room: Memory for the longest frame; nothing of it is kept.

    Raises:
        MigrationError: A frame is none, or not the one that must come next; the stream is over.
        OSError: The connection broke.
    """
    header = room[:HEADER_BYTES]
    try:
        while wire.read_exactly(header):
            length, head = payload_length(header), head_length(header)
            if head is not None:
                _take_pages(wire, taker, stream, room[:head])
                continue
            answer = taker.apply(_whole(wire, room, length), stream)
            if answer is not None or taker.wants_loop(stream):
                return Stop(answer)
    except (WireError, NotSealed) as error:
        text = f"Destination refused a frame: {error}"
        raise AttemptFailed("bad-frame", text, "The machine goes on at its source") from None
    return Stop(ended=True)


def _take_pages(wire: Wire, taker: FrameTaker, stream: int, head: memoryview) -> None:
    _rest(wire, head[HEADER_BYTES:])
    coming = decode_head(head)
    places = taker.expect(coming, stream)
    try:
        wire.fill(places)
    finally:
        for place in places:  # not later: whoever holds an error would hold the mapping of RAM
            place.release()
    taker.arrived(coming, stream)


def _whole(wire: Wire, room: memoryview, length: int) -> memoryview:
    """Return a message whose header has come, in memory of its own unless it is of pages: others may be kept."""
    message = room[: HEADER_BYTES + length]
    if room[1] != Kind.PAGES:
        message = memoryview(bytearray(HEADER_BYTES + length))
        message[:HEADER_BYTES] = room[:HEADER_BYTES]
    _rest(wire, message[HEADER_BYTES:])
    return message.toreadonly()


def _rest(wire: Wire, into: memoryview) -> None:
    if len(into) and not wire.read_exactly(into):
        raise ConnectionResetError("Closed in the middle of a frame")
