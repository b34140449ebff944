"""One machine that is arriving: its image, its streams, its ticket.

The image takes frames on the agent's loop, a frame at a time, so that its checks and its writes are one step.
"""

import hmac
import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from vm_migration.errors import AttemptFailed, Refused, Unauthorised
from vm_migration.handover.arrival import ready, received_whole
from vm_migration.handover.custody import Custody
from vm_migration.transfer.errors import TransferError
from vm_migration.transfer.frames import Ack
from vm_migration.transfer.incoming import IncomingImage, VerifyResult
from vm_migration.wire.bitmap_codec import decode_bitmap
from vm_migration.wire.errors import WireError
from vm_migration.wire.frame import decode
from vmm.memory.ram_block import RamBlock


@dataclass(frozen=True, slots=True)
class Finished:
    """What loading and verifying came to; times in milliseconds."""

    pause: int
    result: VerifyResult | None
    load_ms: float
    verify_ms: float

    @property
    def ready(self) -> bool:
        """Whether the machine is READY: verified wherever verification was asked for."""
        return self.result is None or self.result.whole


class IncomingAttempt:
    """An attempt between PREPARED and READY."""

    def __init__(
        self, custody: Custody, ram: RamBlock, source: str, ticket: bytes, *, streams: int, full: bool
    ) -> None:
        self.custody: Final = custody
        self.source: Final = source
        self.ticket: Final = ticket
        self.prepare_ms = 0.0
        self._ram: Final = ram
        self._free_streams: Final = set(range(streams))
        attempt = UUID(custody.record.attempt or "")
        self._image: Final = IncomingImage(ram.words, attempt, streams, full=full)

    @property
    def whole(self) -> bool:
        """Whether every page that was announced is in RAM."""
        return self._image.whole

    @property
    def stale_pages(self) -> int:
        """How many announced pages have not come."""
        return self._image.stale_pages

    def require_source(self, name: str | None) -> None:
        """Check who speaks for the source; None is a plaintext peer, which has no name.

        Raises:
            Unauthorised: It is another host.
        """
        if name is not None and name != self.source:
            raise Unauthorised("wrong-source", f"{name} is not the source of this attempt, {self.source} is")

    def admit(self, ticket: bytes, stream: int) -> None:
        """Let a stream in: the ticket must be this attempt's, and each ordinal comes once.

        Raises:
            Unauthorised: It is not.
        """
        if not hmac.compare_digest(ticket, self.ticket):
            raise Unauthorised("wrong-ticket", "Bulk stream's ticket is not this attempt's", "Begin a new attempt")
        if stream not in self._free_streams:
            raise Unauthorised("stream-taken", f"Bulk stream {stream} was opened before, or is not of this attempt")
        self._free_streams.remove(stream)

    def open_round(self, number: int, bitmap: bytes) -> None:
        """Take a round's announcement.

        Raises:
            AttemptFailed: It does not follow from what came before; the attempt cannot go on.
        """
        try:
            self._image.open_round(number, decode_bitmap(self._ram.pages, bitmap))
        except (TransferError, WireError, ValueError) as error:
            raise _bad("round", error) from error

    def take(self, message: bytes, stream: int) -> Ack | None:
        """Take one message of a bulk stream.

        Raises:
            AttemptFailed: It is not the frame that must come next; the attempt cannot go on.
        """
        try:
            return self._image.apply(decode(message), stream)
        except (TransferError, WireError) as error:
            raise _bad("frame", error) from error

    async def finish(self, *, pause: int, number: int, state: bytes, was_running: bool, verify: bool) -> Finished:
        """Load and verify; READY is durable when this returns with nothing mismatched.

        Raises:
            Refused: The round that the source names is not closed here.
            MachineError: The machine process refused the state.
        """
        if not self._image.whole or self._image.round != number:
            text = f"Round {number} is not whole here: {self._image.stale_pages} pages are missing"
            raise Refused("not-whole", text, "The source aborts and resumes")
        await self.custody.write(lambda record: received_whole(record, pause=pause))
        started = time.monotonic_ns()
        await self.custody.port.load(state, pause)
        loaded = time.monotonic_ns()
        result = self._image.verify() if verify else None
        verified = time.monotonic_ns()
        finished = Finished(pause, result, (loaded - started) / 1e6, (verified - loaded) / 1e6)
        if finished.ready:
            await self.custody.write(lambda record: ready(record, pause=pause, was_running=was_running))
        return finished

    def let_go_of_ram(self) -> None:
        """Close the descriptor of the machine's RAM; the mapping goes with this attempt."""
        self._ram.close()


def _bad(what: str, error: Exception) -> AttemptFailed:
    return AttemptFailed(f"bad-{what}", f"Destination refused a {what}: {error}", "The machine goes on at its source")
