"""One stream's pages on their way from a round to the wire.

::

    round ── what a frame says ──> with a codec, up to AHEAD at a time ──> numbered and sent, in order ── pacer

While frames are with their codec the next ones are made. They are numbered when they are sent, since a heartbeat may
have to go before them. What was taken out of a round is sent, also where the round is cut: the round counts it as sent.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from source_agent.bulk_stream import BulkStream
from source_agent.compressing import AHEAD, Compressing, Made
from source_agent.offered import Offered
from source_agent.pacing import Pacer
from vm_migration.loop_clock import loop_ns
from vm_migration.transfer.frames import Body, CompressedPages, Frame, Pages, Zeros
from vm_migration.transfer.outgoing import OutgoingRound
from vm_migration.transfer.page_runs import page_count
from vmm.memory.quantities import PAGE_SIZE

HEARTBEAT_AFTER: Final = 1.0
"""Seconds without a frame after which a stream sends a heartbeat."""


@dataclass(slots=True)
class RoundCounts:
    """What one round has moved so far, over all streams."""

    pages: int = 0
    sent_pages: int = 0
    zero_pages: int = 0
    compressed_pages: int = 0
    delta_pages: int = 0
    held_back_pages: int = 0
    sending_ns: int = 0
    """For how long the stream that took longest had something to send, or waited for it to arrive."""

    def count(self, body: Body, sent: Body) -> None:
        """Count what a frame says, and how it was sent."""
        match body:
            case Zeros():
                self.zero_pages += page_count(body.runs)
            case Pages() | CompressedPages():
                pages = body.page_bytes // PAGE_SIZE
                self.sent_pages += pages
                self.compressed_pages += pages if isinstance(sent, CompressedPages) else 0
                self.delta_pages += pages if isinstance(body, CompressedPages) else 0
            case _:
                pass


class PageFlow:
    """Sends one stream's shares, round after round."""

    def __init__(self, bulk: BulkStream, compression: str, pacer: Pacer, offered: Offered) -> None:
        self.raw_bytes = 0
        """Bytes of the pages that were sent, before anything made them fewer."""
        self.compressing: Final = Compressing(compression)
        self.bulk: Final = bulk
        self.idle_ns = 0
        """Of the round, for how long all that was sent had arrived, and devices were being read."""
        self._pacer: Final = pacer
        self._offered: Final = offered

    async def send(
        self, part: OutgoingRound, bodies: Iterator[Body], counts: RoundCounts, cut: asyncio.Event, *, still: bool
    ) -> None:
        """Send what `part` says of its pages, until the round is cut.

        Args:
            part: The share that numbers the frames.
            bodies: Of it, what is to be sent.
            counts: What the round has moved so far.
            cut: Ends it early.
            still: The guest stands still, so that no codec is tried out.

        Raises:
            MigrationError: The stream is over.
        """
        ahead: _Ahead = deque()
        compressing, sending = self.compressing, _Sending(part, counts, cut, still)
        try:
            for body in () if cut.is_set() else bodies:
                part.digest_summed = self._offered.digest_summed
                offered = self._offered.compressed
                if compressing.wants_sample(body, still=still, offered=offered):
                    await self._send_ahead(sending, ahead)  # so that it is sampled alone
                    await compressing.sample(body)
                codec = compressing.codec_for(body, still=still, offered=offered)
                if codec is None:
                    await self._send_ahead(sending, ahead)
                    await self._send_made(sending, body, Made(body))
                else:
                    await self._send_ahead(sending, ahead, but=AHEAD - 1)
                    ahead.append((body, asyncio.create_task(compressing.made(body, codec), name="codec")))
                if cut.is_set():
                    break
            await self._send_ahead(sending, ahead)
        finally:
            for _, making in ahead:
                making.cancel()

    async def send_frame(self, frame: Frame, part: OutgoingRound, cut: asyncio.Event) -> None:
        """Send one frame, and wait for what the bandwidth asks for.

        Raises:
            MigrationError: The stream is over.
        """
        before = self.bulk.wire_bytes
        await self.bulk.send(frame)
        self._pacer.spend(self.bulk.wire_bytes - before)
        while not await self._pacer.ready(HEARTBEAT_AFTER, unless=cut):
            await self.bulk.send(part.heartbeat())

    async def _send_ahead(self, sending: "_Sending", ahead: "_Ahead", *, but: int = 0) -> None:
        """Send the oldest of what is with codecs, but for so many."""
        while len(ahead) > but:
            body, making = ahead[0]
            made = await making
            ahead.popleft()
            await self._send_made(sending, body, made)

    async def _send_made(self, sending: "_Sending", body: Body, made: Made) -> None:
        began_ns = loop_ns()
        await self.send_frame(sending.part.frame(made.body), sending.part, sending.cut)
        self.compressing.sent(made, began_ns, still=sending.still)
        sending.counts.count(body, made.body)
        if isinstance(body, Pages | CompressedPages):
            self.raw_bytes += body.page_bytes


@dataclass(frozen=True, slots=True)
class _Sending:
    """What one call of `send` was given."""

    part: OutgoingRound
    counts: RoundCounts
    cut: asyncio.Event
    still: bool


_Ahead = deque[tuple[Body, asyncio.Task[Made]]]
"""What frames say, in their order, and what becomes of it."""
