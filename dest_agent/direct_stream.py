"""One direct stream as it comes in: its hello, its frames, what it is answered, and why it is ended."""

import contextlib
import time
from functools import partial
from typing import Final, Protocol

from dest_agent.direct_frames import FrameTaker, take_frames
from vm_migration.errors import MigrationError, Unauthorised
from vm_migration.link.direct_answer import encode_refusal
from vm_migration.link.direct_hello import HELLO_BYTES, Hello, decode_hello
from vm_migration.link.direct_threads import DirectThreads
from vm_migration.link.direct_tls import identity_of
from vm_migration.link.direct_wire import DirectWire, Wire
from vm_migration.link.identity import Identity
from vm_migration.link.sealed_wire import SealedWire
from vm_migration.link.sealing import SECRET_BYTES
from vm_migration.transfer.frames import Ack
from vm_migration.wire.ack import encode_ack
from vm_migration.wire.frame import MAX_FRAME

_LINGER: Final = 1.0
"""Seconds in which a peer may read why its stream was ended."""


class DirectArrival(FrameTaker, Protocol):
    """An arrival whose frames a thread takes: dest_agent.incoming_attempt.IncomingAttempt."""

    async def settle(self, answer: Ack | None, stream: int) -> None:
        """Pass device state on that came on a stream; all of it before an answer is given."""


class DirectStream:
    """One connection from its accepting to its end; `close` must be called."""

    def __init__(self, wire: DirectWire) -> None:
        self._wire: Final = wire
        self._threads: Final = DirectThreads(wire)
        self._room: memoryview | None = None
        """Made once the stream is let in."""

    async def greeted(self, seconds: float) -> tuple[Hello, Identity | None]:
        """Return what the peer says first and who it is; without TLS it is nobody.

        Raises:
            Unauthorised: It says no hello, or its certificate names nobody.
            OSError: It is silent for so long, has no certificate of the site, or has gone.
        """
        deadline = time.monotonic() + seconds
        hello, identity, secret = await self._threads.begin(partial(_greeted, self._wire, deadline))
        if secret:
            self._wire.leave_tls()
            self._threads.wire = SealedWire(self._wire, secret, is_source=False)
        return hello, identity

    async def next_answer(self, arrival: DirectArrival, stream: int) -> Ack | None:
        """Take frames until one asks for an answer, and return that; None where the peer ended the stream.

        Raises:
            MigrationError: What came is no frame, or not the one that must come next.
            OSError: The connection broke.
        """
        wire = self._threads.wire
        if self._room is None:
            self._room = memoryview(bytearray(MAX_FRAME))
        while True:
            stop = await self._threads.begin(partial(take_frames, wire, arrival, stream, self._room))
            if stop.ended:
                return None
            await arrival.settle(stop.answer, stream)
            if stop.answer is not None:
                return stop.answer

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


def _greeted(wire: DirectWire, deadline: float) -> tuple[Hello, Identity | None, bytes]:
    """Return what the peer says first, who it is, and the secret that it seals with from here on, where it does."""
    wire.handshake(deadline)
    identity = identity_of(wire.connection)
    hello = decode_hello(_read(wire, HELLO_BYTES, deadline))
    if hello.sealed and identity is None:
        raise Unauthorised("plaintext-secret", "A sealed stream's secret came in plaintext", "Configure [tls]")
    return hello, identity, bytes(_read(wire, SECRET_BYTES, deadline)) if hello.sealed else b""


def _read(wire: DirectWire, count: int, deadline: float) -> memoryview:
    message = memoryview(bytearray(count))
    if not wire.read_exactly(message, deadline):
        raise ConnectionResetError("Closed before it said who it is")
    return message


def _said(wire: Wire, message: bytes, deadline: float) -> None:
    wire.write((message,), deadline)
    wire.drain(deadline)
