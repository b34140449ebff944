"""A guest whose RAM changes between rounds, and the messages that its source sends of it: every kind of frame."""

from typing import Final
from uuid import UUID

import numpy as np

from tests.fakes.far_end import random_pages
from vm_migration.transfer.codecs import Compressor
from vm_migration.transfer.frames import Body, Codec, CompressedPages, Frame, Pages
from vm_migration.transfer.outgoing import OutgoingRound, OutgoingStream
from vm_migration.transfer.sent_pages import SentPages
from vm_migration.wire.frame import encode
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE
from vmm.vfio.device_records import DeviceRecord, RecordKind

PAGES: Final = 192
_PER_FRAME: Final = 5
PAYLOAD: Final = _PER_FRAME * (PAGE_SIZE + 16)
"""Small frames: what is damaged is mostly a frame's head and its tables."""
_WAYS: Final = ("summed", "digest-summed", "deltas", "lz4", "zstd")


class Guest:
    """Sends everything on one stream; `pages` is its RAM."""

    def __init__(self, attempt: UUID, seed: int) -> None:
        self.pages: Final = random_pages(PAGES)
        self.round = -1
        self._random: Final = np.random.default_rng(seed)
        self._stream: Final = OutgoingStream(attempt, 0, payload_bytes=PAYLOAD)
        self._sent: Final = SentPages(PAGES * PAGE_SIZE)
        self._compressor: Final = Compressor()

    def next_round(self) -> tuple[DirtyBitmap, list[bytes]]:
        """Write some pages, and return which a round announces, and its messages in their order."""
        self.round += 1
        dirty = DirtyBitmap.full(PAGES) if self.round == 0 else self._written()
        way = _WAYS[self.round % len(_WAYS)]
        part = self._stream.round(
            self.round,
            self.pages,
            dirty,
            digested=self.round > 0,
            digest_summed=way == "digest-summed",
            announced=DirtyBitmap.full(PAGES) - dirty,
            remembered=self._sent if way == "deltas" else None,
        )
        if way != "deltas":
            self._sent.clear()
        codec = {"lz4": Codec.LZ4, "zstd": Codec.ZSTD}.get(way)
        messages = [encode(part.frame(self._packed(body, codec))) for body in part.bodies()]
        return dirty, [*messages, encode(self._device(part)), encode(part.heartbeat()), encode(part.barrier())]

    def _written(self) -> DirtyBitmap:
        dirty = DirtyBitmap(PAGES)
        for page in self._random.choice(PAGES, PAGES // 3, replace=False).tolist():
            dirty.set_run(page, 1)
            self.pages[page, : self._random.integers(1, 90)] = self._random.integers(1, 1 << 63)
            if self._random.random() < 0.2:
                self.pages[page] = 0
        return dirty

    def _packed(self, body: Body, codec: Codec | None) -> Body:
        if codec is None or not isinstance(body, Pages):
            return body
        packed = self._compressor.compressed(codec, body.data)
        return (
            CompressedPages(body.runs, codec, memoryview(packed), body.digests)
            if len(packed) < len(body.data)
            else body
        )

    def _device(self, part: OutgoingRound) -> Frame:
        return part.device(DeviceRecord("qat0", RecordKind.DATA, memoryview(self._random.bytes(40))))
