"""Compressed pages on several streams at once: they arrive, and no stream's codec makes another one wait."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.far_end import PAGES, STREAMS, Lane, far_end, random_pages
from vm_migration.transfer.codecs import Compressor, Decompressor
from vm_migration.transfer.digests import PageWords
from vm_migration.transfer.frames import Codec, CompressedPages, Frame, Pages
from vm_migration.transfer.outgoing import OutgoingRound
from vm_migration.transfer.page_runs import split
from vm_migration.transfer.sent_pages import SentPages
from vm_migration.wire.bitmap_codec import encode_bitmap
from vm_migration.wire.frame import encode
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE

LONG = 20.0


def compressible_pages(count: int) -> PageWords:
    return random_pages(count) & np.uint64(0xFFFF)


def compressed(part: OutgoingRound, codec: Codec) -> Iterator[Frame]:
    """Yield a share's frames, those of pages compressed."""
    compressor = Compressor()
    for body in part.bodies():
        if isinstance(body, Pages):
            packed = memoryview(compressor.compressed(codec, body.data))
            yield part.frame(CompressedPages(body.runs, codec, packed, body.digests))
        else:
            yield part.frame(body)


async def sent(lane: Lane, part: OutgoingRound, codec: Codec) -> int:
    """Send a share compressed, and return how many pages were missing when its end was answered."""
    for frame in compressed(part, codec):
        await lane.bulk.send(frame)
    return (await (await lane.bulk.ask(part.barrier()))).stale_pages


class Held(Decompressor):
    """Begins, and goes on only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.told = threading.Event()

    def page_data_of(self, body: CompressedPages) -> memoryview:
        self.begun.set()
        assert self.told.wait(LONG)
        return super().page_data_of(body)


@pytest.mark.parametrize("transport", ["grpc", "direct", "sealed"])
@pytest.mark.parametrize("codec", list(Codec))
async def test_compressed_pages_arrive_as_they_were_over_several_streams(
    tmp_path: Path, transport: str, codec: Codec
) -> None:
    pages = compressible_pages(PAGES)
    shares = split(DirtyBitmap.full(PAGES), STREAMS)
    async with far_end(tmp_path, transport, secured=transport == "sealed") as far, asyncio.timeout(LONG):
        async with far.streams(count=STREAMS) as lanes:
            parts = [
                lane.frames.round(0, pages, share, digested=True) for lane, share in zip(lanes, shares, strict=True)
            ]
            left = await asyncio.gather(*(sent(lane, part, codec) for lane, part in zip(lanes, parts, strict=True)))
            assert min(left) == 0
            assert sum(lane.bulk.wire_bytes for lane in lanes) < pages.nbytes / 2
        assert np.array_equal(far.image, pages)


@pytest.mark.parametrize("transport", ["grpc", "direct"])
async def test_what_changed_in_pages_arrives_over_several_streams(tmp_path: Path, transport: str) -> None:
    pages, every = random_pages(PAGES), DirtyBitmap.full(PAGES)
    remembered = SentPages(PAGES * PAGE_SIZE)
    deltas = []
    async with (
        far_end(tmp_path, transport, secured=False) as far,
        asyncio.timeout(LONG),
        far.streams(count=STREAMS) as lanes,
    ):
        for number in range(4):
            if number:
                pages[:, 8 * number : 8 * number + 8] = number
                far.arrival.open_round(number, encode_bitmap(every))
            parts = [
                lane.frames.round(number, pages, share, digested=True, remembered=remembered if number else None)
                for lane, share in zip(lanes, split(every, STREAMS), strict=True)
            ]
            await asyncio.gather(*(lane.send(part) for lane, part in zip(lanes, parts, strict=True)))
            deltas.append(sum(part.delta_pages for part in parts))
            assert np.array_equal(far.image, pages)
    assert deltas == [0, 0, PAGES, PAGES]  # round 1 is the first that is remembered


@pytest.mark.parametrize("transport", ["grpc", "direct"])
async def test_a_stream_whose_frame_is_being_decompressed_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """On the loop, which takes what comes over gRPC, as on the threads of direct streams."""
    pages = compressible_pages(PAGES)
    slow = Held()
    async with far_end(tmp_path, transport, secured=False) as far, asyncio.timeout(LONG):
        monkeypatch.setattr(far.arrival, "_decompressors", (Decompressor(), slow))
        async with far.streams(count=STREAMS) as lanes:
            messages = [
                encode(next(compressed(lane.frames.round(0, pages, share), Codec.ZSTD)))
                for lane, share in zip(lanes, split(DirtyBitmap.full(PAGES), STREAMS), strict=True)
            ]

            async def taken(stream: int) -> None:
                if transport == "grpc":
                    await far.arrival.take(messages[stream], stream)
                else:
                    await asyncio.to_thread(far.arrival.apply, messages[stream], stream)

            held = asyncio.create_task(taken(1))
            try:
                assert await asyncio.to_thread(slow.begun.wait, LONG)
                await taken(0)
                missing = far.arrival.stale_pages
            finally:
                slow.told.set()
            await held
            assert far.arrival.stale_pages < missing < PAGES
