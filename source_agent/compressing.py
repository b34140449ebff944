"""One stream's frames of pages on their way to the wire: compressed where that is worth it, and what it took.

A codec works in a thread, for it needs no interpreter meanwhile; what it reads is the frame's own copy of the pages.
While up to AHEAD frames are with their codec, the loop makes the next one.
"""

import asyncio
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

from vm_migration.loop_clock import loop_ns
from vm_migration.transfer.codecs import Compressor
from vm_migration.transfer.compression import AutoCompression, Sample, Sent
from vm_migration.transfer.frames import MAX_PAYLOAD, Body, Codec, CompressedPages, Pages

CODECS: Final = {"lz4": Codec.LZ4, "zstd": Codec.ZSTD}
"""The policies that name a codec; `auto` and `none` do not."""
AHEAD: Final = 2
"""Frames of a stream that are with a codec at a time, beside the one that is being made or sent."""
_SAMPLED_BYTES: Final = 128 << 10
_SAMPLED_OF: Final = 512 << 10
"""Bytes of pages of a frame that is large enough to have a part of it sampled; less where no frame has as many."""


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a frame says as it goes to the wire."""

    body: Body
    work: Sample | None = None
    """What its codec did, where it had one."""


class Compressing:
    """What compresses one stream's frames, round after round."""

    def __init__(self, compression: str) -> None:
        """Begin with a policy: auto, none, lz4 or zstd."""
        self.last: Codec | None = None
        """The codec of the last frame that was compressed."""
        self._auto: Final = AutoCompression(AHEAD) if compression == "auto" else None
        self._named: Final = CODECS.get(compression)
        self._compressors: Final[SimpleQueue[Compressor]] = SimpleQueue()
        for _ in range(AHEAD):
            self._compressors.put(Compressor())
        self._since_ns = 0
        self._frame_bytes = MAX_PAYLOAD

    def limit(self, frame_bytes: int) -> None:
        """Expect frames of at most so many bytes of pages from now on: a small bandwidth makes them small."""
        self._frame_bytes = frame_bytes
        if self._auto is not None:
            self._auto.limit(frame_bytes)

    @property
    def deltas_pay(self) -> bool:
        """Whether pages that are sent again should be sent as deltas, by what is known now."""
        return self._named is not None or (self._auto is not None and self._auto.waits)

    def begin(self) -> None:
        """Begin a round, or go on with one: what comes between is nobody's time, and the link's buffers are empty."""
        self._since_ns = loop_ns()
        if self._auto is not None:
            self._auto.resume()

    def wants_sample(self, body: Body, *, still: bool, offered: bool) -> bool:
        """Say whether it should be seen what codecs make of a frame, while nothing else is under way."""
        if self._auto is None or still or not offered or not isinstance(body, Pages):
            return False
        return self._auto.wants_sample and len(body.data) >= min(_SAMPLED_OF, self._frame_bytes)

    async def sample(self, body: Body) -> None:
        """Give a part of a frame's pages to each codec; the time that it takes counts for no frame."""
        if self._auto is None or not isinstance(body, Pages):
            return
        begun = loop_ns()
        data = body.data[:_SAMPLED_BYTES]
        samples = {}
        for codec in Codec:
            started = loop_ns()
            packed = await asyncio.to_thread(self._packed, codec, data)
            samples[codec] = Sample(len(data), len(packed), (loop_ns() - started) / 1e9)
        took = loop_ns() - begun
        self._since_ns += took
        self._auto.sampled(samples, took / 1e9)

    def codec_for(self, body: Body, *, still: bool, offered: bool) -> Codec | None:
        """Return the codec that a frame should have now; None where it goes as it is."""
        if not offered or not isinstance(body, Pages):
            return None
        if self._auto is None:
            return self._named
        return self._auto.settled() if still else self._auto.codec

    async def made(self, body: Body, codec: Codec | None) -> Made:
        """Return what a frame says as it goes to the wire: compressed, where its codec makes it smaller.

        At most AHEAD calls with a codec may be under way.
        """
        if codec is None or not isinstance(body, Pages):
            return Made(body)
        started = loop_ns()
        packed = await asyncio.to_thread(self._packed, codec, body.data)
        work = Sample(len(body.data), len(packed), (loop_ns() - started) / 1e9)
        if len(packed) >= len(body.data):
            return Made(body, work)
        self.last = codec
        return Made(CompressedPages(body.runs, codec, memoryview(packed), body.digests), work)

    def sent(self, made: Made, began_ns: int, *, still: bool) -> None:
        """Note that a frame that was `made` is sent, which began at a moment of the loop's clock."""
        now = loop_ns()
        since, self._since_ns = self._since_ns, now
        body = made.body
        if self._auto is None or still or not isinstance(body, Pages | CompressedPages):
            return
        if isinstance(body, CompressedPages) and body.bases is not None:
            return  # deltas say nothing of other pages
        seconds, waited = (now - since) / 1e9, (now - began_ns) / 1e9
        self._auto.sent(Sent(body.page_bytes, seconds, waited, made.work))

    def _packed(self, codec: Codec, data: memoryview) -> bytes:
        """Compress by whatever is free; in a thread."""
        compressor = self._compressors.get()
        try:
            return compressor.compressed(codec, data)
        finally:
            self._compressors.put(compressor)
