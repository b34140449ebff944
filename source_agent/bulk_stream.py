"""One bulk stream, from its opening to its end: what is sent, what is answered, and whether it still lives.

A cable that was pulled closes nothing. So somebody listens to a stream for as long as it is open, whatever else is
waited for; what he hears of it, and how long he may hear nothing, is source_agent.pulse. How the bytes travel is the
carrier's: source_agent.grpc_carrier, source_agent.direct_carrier.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from source_agent.pulse import Pulse
from vm_migration.errors import AttemptFailed, MigrationError
from vm_migration.transfer.frames import Ack, AckKind, Barrier, Frame, Heartbeat
from vm_migration.wire.ack import decode_ack
from vm_migration.wire.errors import WireError
from vm_migration.wire.frame import encode_parts

_LOOK_EVERY: Final = 0.5
_LAST_WORD: Final = 1.0
"""Seconds in which it is known why a stream that has ended did."""


class Unsent(Exception):
    """A carrier took nothing more, and does not know why; whoever reads from it does."""


class Carrier(Protocol):
    """Carries the messages of one stream, in their order."""

    async def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Take a message, given in parts that nobody changes any more; returns when the next one can be given.

        Raises:
            MigrationError: Why the stream is over.
            Unsent: It is over.
        """

    async def read(self) -> bytes | None:
        """Return the peer's next answer; None where it closed the stream.

        Raises:
            MigrationError: Why the stream is over.
        """

    def cancel(self) -> None:
        """End the stream, whoever reads or writes."""


class BulkStream:
    """One stream of frames; `listen` must run while it is used."""

    def __init__(self, carrier: Carrier, peer: str) -> None:
        self.wire_bytes = 0
        self.sent_at = self._now()
        """When the last frame was sent, on the loop's clock."""
        self._peer: Final = peer
        self._carrier: Final = carrier
        self._pulse: Final = Pulse(self._now())
        self._awaited: Final[dict[tuple[AckKind, int], asyncio.Future[Ack]]] = {}
        self._over: Final = asyncio.Event()

    async def send(self, frame: Frame) -> None:
        """Send one frame.

        Raises:
            MigrationError: The stream is over.
        """
        parts = encode_parts(frame)
        self._pulse.writes(self._now())
        try:
            await self._carrier.write(parts)
        except Unsent:
            raise await self._end() from None
        self._pulse.wrote(self._now())
        self.sent_at = self._now()
        if isinstance(frame.body, Barrier | Heartbeat):
            self._pulse.asks(self._now())
        self.wire_bytes += sum(map(len, parts))

    async def ask(self, frame: Frame) -> "asyncio.Future[Ack]":
        """Send a barrier or a heartbeat, and return what its answer will be; it comes, or `listen` fails.

        Raises:
            MigrationError: The stream is over.
        """
        answer: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._awaited[_asked(frame), frame.place.sequence] = answer
        await self.send(frame)
        return answer

    async def listen(self) -> None:
        """Take the peer's answers until cancelled.

        Raises:
            MigrationError: The stream is over, or dead.
        """
        reading = asyncio.create_task(self._read(), name="answers of a bulk stream")
        try:
            while not reading.done():
                left = self._pulse.dead_at() - self._now()
                if left <= 0:
                    raise self._dead()
                await asyncio.wait((reading,), timeout=min(left, _LOOK_EVERY))
            reading.result()
        finally:
            self._over.set()
            reading.cancel()

    async def _read(self) -> None:
        while True:
            message = await self._carrier.read()
            if message is None:
                raise self._closed()
            try:
                self._take(decode_ack(message))
            except WireError as error:
                text = f"{self._peer} answered with no acknowledgement: {error}"
                raise AttemptFailed("bad-answer", text, "Look at its log") from None

    def _take(self, ack: Ack) -> None:
        told = ack.kind is AckKind.PROGRESS
        waiting = self._awaited.pop((ack.kind, ack.place.sequence), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(ack)
        applied = ack.place.sequence + (0 if told else 1)
        self._pulse.heard(self._now(), applied, awaited=bool(self._awaited), tells=told)

    def _dead(self) -> AttemptFailed:
        self._carrier.cancel()
        text = f"Nothing moved any more on the bulk stream to {self._peer}"
        return AttemptFailed("stream-stalled", text, "Look at the link and at the other host")

    def _closed(self) -> AttemptFailed:
        return AttemptFailed("stream-closed", f"{self._peer} closed the bulk stream", "Look at its log")

    async def _end(self) -> MigrationError:
        """Return why a write failed; whoever listens knows better, and ends the one who writes."""
        try:
            async with asyncio.timeout(_LAST_WORD):
                await self._over.wait()
        except TimeoutError:
            pass
        return self._closed()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _asked(frame: Frame) -> AckKind:
    return AckKind.BARRIER if isinstance(frame.body, Barrier) else AckKind.HEARTBEAT
