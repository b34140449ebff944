"""One bulk stream, from its opening to its end: what is sent, what is answered, and whether it still lives.

A cable that was pulled closes nothing. So somebody listens to a stream for as long as it is open, whatever else is
waited for; what he hears of it, and how long he may hear nothing, is source_agent.pulse.
"""

import asyncio
from typing import Final

import grpc
import grpc.aio

from source_agent.pulse import Pulse
from vm_migration.errors import AttemptFailed, MigrationError
from vm_migration.link.status import from_rpc_error
from vm_migration.transfer.frames import Ack, AckKind, Barrier, Frame, Heartbeat
from vm_migration.wire.ack import decode_ack
from vm_migration.wire.errors import WireError
from vm_migration.wire.frame import encode

BULK_METHOD: Final = "/vm_migration.api.v1.Bulk/Send"
_LOOK_EVERY: Final = 0.5
_LAST_WORD: Final = 1.0
"""Seconds in which the status of a stream that has ended is here."""


class BulkStream:
    """One stream of frames, on a channel of its own; `listen` must run while it is used."""

    def __init__(self, channel: grpc.aio.Channel, attempt: str, ticket: bytes, ordinal: int, peer: str) -> None:
        self.wire_bytes = 0
        self.sent_at = self._now()
        """When the last frame was sent, on the loop's clock."""
        self._peer: Final = peer
        metadata = (
            ("viaduct-attempt", attempt),
            ("viaduct-stream", str(ordinal)),
            ("viaduct-ticket-bin", ticket),
            ("viaduct-progress", "1"),
        )
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(BULK_METHOD)
        self._call: Final = method(metadata=metadata)
        self._pulse: Final = Pulse(self._now())
        self._awaited: Final[dict[tuple[AckKind, int], asyncio.Future[Ack]]] = {}
        self._over: Final = asyncio.Event()

    async def send(self, frame: Frame) -> None:
        """Send one frame.

        Raises:
            MigrationError: The stream is over.
        """
        message = encode(frame)
        self._pulse.writes(self._now())
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            raise await self._end(error) from None
        self._pulse.wrote(self._now())
        self.sent_at = self._now()
        if isinstance(frame.body, Barrier | Heartbeat):
            self._pulse.asks(self._now())
        self.wire_bytes += len(message)

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

    def cancel(self) -> None:
        """End the stream."""
        self._call.cancel()

    async def _read(self) -> None:
        while True:
            try:
                message = await self._call.read()
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, self._peer) from None
            if not isinstance(message, bytes):
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
        self._call.cancel()
        text = f"Nothing moved any more on the bulk stream to {self._peer}"
        return AttemptFailed("stream-stalled", text, "Look at the link and at the other host")

    def _closed(self) -> AttemptFailed:
        return AttemptFailed("stream-closed", f"{self._peer} closed the bulk stream", "Look at its log")

    async def _end(self, error: Exception) -> MigrationError:
        """Return why a write failed; whoever listens knows better, and ends the one who writes."""
        if isinstance(error, grpc.aio.AioRpcError) and not _own_guess(error):
            return from_rpc_error(error, self._peer)
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


def _own_guess(error: grpc.aio.AioRpcError) -> bool:
    """Say whether this side made the status up: a write that meets the end of a stream hides what the peer said.

    grpc.aio then sets INTERNAL itself, before the peer's status is read (grpc.aio._call, `_write`).
    """
    return error.code() is grpc.StatusCode.INTERNAL and not error.trailing_metadata()
