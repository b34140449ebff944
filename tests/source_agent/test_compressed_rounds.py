"""Rounds whose pages travel compressed: everything arrives, and only a destination that offers it gets them so."""

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
import pytest

from source_agent.compressing import Compressing
from source_agent.progress import Phase
from tests.fakes.receiving_destination import ReceivingDestination, receiving
from tests.simulation.virtual_loop import VirtualLoop
from tests.source_agent.departures import TERMS, A
from tests.source_agent.journeys import MANY_PAGES, departing, running
from vm_migration.daemon.host_facts import FEATURES
from vm_migration.transfer.frames import Codec, CompressedPages, Frame, Heartbeat, Pages, Place
from vm_migration.transfer.page_runs import runs_of
from vmm.memory.quantities import PAGE_SIZE

PACED = msgspec.structs.replace(TERMS, max_bandwidth_bytes_per_s=8 << 20, timeout_ms=600_000)
"""The first round lasts until long after the destination has said what it offers."""


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
async def test_a_named_codec_compresses_what_is_sent_once_the_destination_offers_it(
    tmp_path: Path, compression: str
) -> None:
    terms = msgspec.structs.replace(PACED, compression=compression)
    with departing(tmp_path, MANY_PAGES) as (held, _):
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, handoffs=["ACTIVE"])
        async with receiving(there), running(held, there.address, terms=terms) as (attempt, task):
            await task
            shown = attempt.board.progress
            assert shown.phase is Phase.COMPLETED, shown.failure
        assert (there.words == 1).all()
        first = shown.rounds.recent[0]
        assert 0 < first.compressed_pages <= first.sent_pages == MANY_PAGES
        sent_as_they_are = first.sent_pages - first.compressed_pages
        assert first.wire_bytes < sent_as_they_are * PAGE_SIZE + first.compressed_pages * PAGE_SIZE / 10
        assert shown.compression == compression
        assert shown.raw_bytes == MANY_PAGES * PAGE_SIZE
        assert shown.wire_bytes < shown.raw_bytes / 2


@pytest.mark.parametrize(
    ("compression", "features"),
    [("zstd", tuple(one for one in FEATURES if one != "frames-compressed")), ("zstd", ()), ("none", FEATURES)],
)
async def test_nothing_is_compressed_where_it_is_not_offered_or_not_wanted(
    tmp_path: Path, compression: str, features: tuple[str, ...]
) -> None:
    terms = msgspec.structs.replace(TERMS, compression=compression)
    with departing(tmp_path, MANY_PAGES) as (held, _):
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, handoffs=["ACTIVE"], features=features)
        async with receiving(there), running(held, there.address, terms=terms) as (attempt, task):
            await task
            shown = attempt.board.progress
            assert shown.phase is Phase.COMPLETED, shown.failure
        assert (there.words == 1).all()
        assert [measured.compressed_pages for measured in shown.rounds.recent] == [0] * len(shown.rounds.recent)
        assert shown.compression == "none"
        assert shown.wire_bytes > shown.raw_bytes == MANY_PAGES * PAGE_SIZE


def frame_of(data: bytes) -> Frame:
    runs = runs_of(np.arange(len(data) // PAGE_SIZE))
    return Frame(Place(UUID(A), 0, 0, 0), Pages(runs, memoryview(data)))


async def test_a_frame_that_no_codec_makes_shorter_goes_as_it_is() -> None:
    compressing = Compressing("zstd")
    compressing.begin()
    frame = frame_of(np.random.default_rng(1).bytes(64 * PAGE_SIZE))
    assert await compressing.made(frame, still=False, offered=True) is frame
    assert compressing.last is None
    heartbeat = replace(frame, body=Heartbeat())
    assert await compressing.made(heartbeat, still=False, offered=True) is heartbeat


async def test_a_compressed_frame_keeps_its_place_runs_and_digests() -> None:
    compressing = Compressing("lz4")
    compressing.begin()
    digests = np.arange(4, dtype=np.uint64)
    frame = frame_of(bytes(range(256)) * 64)
    body = frame.body
    assert isinstance(body, Pages)
    frame = replace(frame, body=replace(body, digests=digests))
    made = await compressing.made(frame, still=True, offered=True)
    assert made.place == frame.place
    assert isinstance(made.body, CompressedPages)
    assert (made.body.codec, made.body.page_bytes) == (Codec.LZ4, 4 * PAGE_SIZE)
    assert made.body.runs is body.runs
    assert made.body.digests is digests


async def sent_over(bytes_per_s: float, frames: int) -> list[type[object]]:
    """Send frames that compress well over a link that is waited for, and return what they were sent as."""
    compressing = Compressing("auto")
    frame = frame_of(bytes(range(256)) * 4096)
    kinds: list[type[object]] = []
    for number in range(frames):
        if number % 50 == 0:
            compressing.begin()
        made = await compressing.made(frame, still=False, offered=True)
        assert isinstance(made.body, Pages | CompressedPages)
        kinds.append(type(made.body))
        await asyncio.sleep(len(made.body.data) / bytes_per_s)
        compressing.sent(made, still=False)
    still = await compressing.made(frame, still=True, offered=True)
    assert type(still.body) is kinds[-1]
    return kinds


def test_auto_compresses_once_it_has_seen_how_slow_the_link_is() -> None:
    loop = VirtualLoop(1)
    try:
        kinds = loop.run_until_complete(sent_over(120e6, 100))
    finally:
        loop.close()
    assert kinds[:14] == [Pages] * 14  # what fills the link's buffers, and what is measured
    assert kinds[14:] == [CompressedPages] * 86
