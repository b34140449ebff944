"""One stream's frames of pages on their way to the wire: compressed where that is worth it, and what it took.

The codec works in a thread, for it needs no interpreter meanwhile; what it reads is the frame's own copy of the pages.
A stream has at most one frame there, and makes none before that one is sent.
"""

import asyncio
from dataclasses import replace
from typing import Final

from vm_migration.loop_clock import loop_ns
from vm_migration.transfer.codecs import Compressor
from vm_migration.transfer.compression import AutoCompression, Sample, Sent
from vm_migration.transfer.frames import Codec, CompressedPages, Frame, Pages

CODECS: Final = {"lz4": Codec.LZ4, "zstd": Codec.ZSTD}
"""The policies that name a codec; `auto` and `none` do not."""
_SAMPLED_BYTES: Final = 128 << 10
_SAMPLED_OF: Final = 512 << 10
"""Bytes of pages of a frame that is large enough to have a part of it sampled."""


class Compressing:
    """What compresses one stream's frames, round after round."""

    def __init__(self, compression: str) -> None:
        """Begin with a policy: auto, none, lz4 or zstd."""
        self.last: Codec | None = None
        """The codec of the last frame that was compressed."""
        self._auto: Final = AutoCompression() if compression == "auto" else None
        self._named: Final = CODECS.get(compression)
        self._compressor: Final = Compressor()
        self._since_ns = self._made_ns = self._sampling_ns = 0
        self._work: Sample | None = None

    @property
    def deltas_pay(self) -> bool:
        """Whether pages that are sent again should be sent as deltas, by what is known now."""
        return self._named is not None or (self._auto is not None and self._auto.waits)

    def begin(self) -> None:
        """Begin a round: what comes between two of them is nobody's time."""
        self._since_ns = loop_ns()

    async def made(self, frame: Frame, *, still: bool, offered: bool) -> Frame:
        """Return a frame as it goes to the wire: compressed, where its codec makes it smaller.

        Args:
            frame: The next frame of the stream.
            still: The guest stands still, so that nothing is tried out.
            offered: The destination takes compressed pages.
        """
        body = frame.body
        self._work, self._sampling_ns = None, 0
        made = frame
        if offered and isinstance(body, Pages):
            if self._auto is not None and not still and self._auto.wants_sample and len(body.data) >= _SAMPLED_OF:
                await self._sample(self._auto, body.data)
            codec = self._codec(still=still)
            if codec is not None:
                made = await self._compressed(frame, body, codec)
        self._made_ns = loop_ns()
        return made

    def sent(self, frame: Frame, *, still: bool) -> None:
        """Note that a frame that was `made` is sent."""
        now = loop_ns()
        since, self._since_ns = self._since_ns, now
        body = frame.body
        if self._auto is None or still or not isinstance(body, Pages | CompressedPages):
            return
        if isinstance(body, CompressedPages) and body.bases is not None:
            return  # deltas say nothing of other pages
        seconds, waited = (now - since - self._sampling_ns) / 1e9, (now - self._made_ns) / 1e9
        self._auto.sent(Sent(body.page_bytes, seconds, waited, self._work))

    def _codec(self, *, still: bool) -> Codec | None:
        if self._auto is None:
            return self._named
        return self._auto.settled() if still else self._auto.codec

    async def _compressed(self, frame: Frame, body: Pages, codec: Codec) -> Frame:
        started = loop_ns()
        packed = await asyncio.to_thread(self._compressor.compressed, codec, body.data)
        self._work = Sample(len(body.data), len(packed), (loop_ns() - started) / 1e9)
        if len(packed) >= len(body.data):
            return frame
        self.last = codec
        return replace(frame, body=CompressedPages(body.runs, codec, memoryview(packed), body.digests))

    async def _sample(self, auto: AutoCompression, data: memoryview) -> None:
        """Give a part of a frame's pages to each codec."""
        begun = loop_ns()
        samples = {}
        for codec in Codec:
            started = loop_ns()
            packed = await asyncio.to_thread(self._compressor.compressed, codec, data[:_SAMPLED_BYTES])
            samples[codec] = Sample(_SAMPLED_BYTES, len(packed), (loop_ns() - started) / 1e9)
        self._sampling_ns = loop_ns() - begun
        auto.sampled(samples, self._sampling_ns / 1e9)
