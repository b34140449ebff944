"""One direct stream as it comes in: its hello, its frames, what it is answered, and why it is ended.

Frames of pages, which are written to RAM before the next one is asked for, come into two rooms in turn: one is filled
by a thread while the loop applies the other. Every other frame has memory of its own, for what it holds may be kept.
"""

import contextlib
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from vm_migration.errors import AttemptFailed, MigrationError
from vm_migration.link.direct_answer import encode_refusal
from vm_migration.link.direct_hello import HELLO_BYTES, Hello, decode_hello
from vm_migration.link.direct_threads import DirectThreads
from vm_migration.link.direct_tls import identity_of
from vm_migration.link.direct_wire import DirectWire
from vm_migration.link.identity import Identity
from vm_migration.transfer.frames import Ack
from vm_migration.wire.ack import encode_ack
from vm_migration.wire.errors import WireError
from vm_migration.wire.frame import HEADER_BYTES, MAX_FRAME, Kind, payload_length

_LINGER: Final = 1.0
"""Seconds in which a peer may read why its stream was ended."""


class DirectStream:
    """One connection from its accepting to its end; `close` must be called."""

    def __init__(self, wire: DirectWire) -> None:
        self._threads: Final = DirectThreads(wire)

    async def greeted(self, seconds: float) -> tuple[Hello, Identity | None]:
        """Return what the peer says first and who it is; without TLS it is nobody.

        Raises:
            Unauthorised: It says no hello, or its certificate names nobody.
            OSError: It is silent for so long, has no certificate of the site, or has gone.
        """
        return await self._threads.begin(partial(_greeted, self._threads.wire, time.monotonic() + seconds))

    async def messages(self) -> AsyncGenerator[memoryview, None]:
        """Yield the frames as they come; each is looked at only until the next is asked for.

        Raises:
            AttemptFailed: What came is longer than any frame, or of another version.
            OSError: The connection broke.
        """
        wire, rooms = self._threads.wire, [memoryview(bytearray(MAX_FRAME)) for _ in range(2)]
        coming, turn = self._threads.begin(partial(read_frame, wire, rooms[0])), 0
        while True:
            try:
                message = await coming
            except WireError as error:
                text = f"Destination refused a frame: {error}"
                raise AttemptFailed("bad-frame", text, "The machine goes on at its source") from None
            if message is None:
                return
            turn = 1 - turn
            coming = self._threads.begin(partial(read_frame, wire, rooms[turn]))
            yield message

    async def answer(self, ack: Ack) -> None:
        """Write one answer.

        Raises:
            OSError: The connection broke.
        """
        await self._threads.begin(partial(self._threads.wire.write, (encode_ack(ack),)))

    async def refuse(self, error: MigrationError) -> None:
        """Say why the stream ends, and wait a moment for the peer to read it; one that has gone is let go."""
        deadline = time.monotonic() + _LINGER
        with contextlib.suppress(OSError):
            await self._threads.begin(partial(_said, self._threads.wire, encode_refusal(error), deadline))

    def close(self) -> None:
        """End the connection, and whatever waits on it."""
        self._threads.close()


def read_frame(wire: DirectWire, room: memoryview) -> memoryview | None:
    """Wait for the next frame and return it, where it may lie in `room`; None where the peer ended the stream.

    Raises:
        FrameError: Its header is not one; nothing was made ready for what it says.
        OSError: The connection broke.
    """
    header = room[:HEADER_BYTES]
    if not wire.read_exactly(header):
        return None
    length = payload_length(header)
    message = room[: HEADER_BYTES + length]
    if header[1] != Kind.PAGES:
        message = memoryview(bytearray(HEADER_BYTES + length))
        message[:HEADER_BYTES] = header
    if length and not wire.read_exactly(message[HEADER_BYTES:]):
        raise ConnectionResetError("Closed in the middle of a frame")
    return message.toreadonly()


def _greeted(wire: DirectWire, deadline: float) -> tuple[Hello, Identity | None]:
    wire.handshake(deadline)
    identity = identity_of(wire.connection)
    message = memoryview(bytearray(HELLO_BYTES))
    if not wire.read_exactly(message, deadline):
        raise ConnectionResetError("Closed before it said anything")
    return decode_hello(message), identity


def _said(wire: DirectWire, message: bytes, deadline: float) -> None:
    wire.write((message,), deadline)
    wire.drain(deadline)
