"""Rounds whose pages travel compressed: everything arrives, and only a destination that offers it gets them so."""

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from source_agent.compressing import AHEAD, Compressing
from source_agent.progress import Phase
from tests.fakes.receiving_destination import ReceivingDestination, receiving
from tests.simulation.virtual_loop import VirtualLoop
from tests.source_agent.departures import TERMS, A
from tests.source_agent.journeys import MANY_PAGES, departing, running
from vm_migration.daemon.host_facts import FEATURES
from vm_migration.loop_clock import loop_ns
from vm_migration.transfer.codecs import Decompressor
from vm_migration.transfer.frames import Codec, CompressedPages, Heartbeat, Pages
from vm_migration.transfer.page_runs import runs_of
from vmm.memory.quantities import PAGE_SIZE

UNHURRIED = msgspec.structs.replace(TERMS, downtime_limit_ms=1_000)
"""One round is enough under either limit; the bound of the pause is three times the limit."""
PACED = msgspec.structs.replace(UNHURRIED, max_bandwidth_bytes_per_s=8 << 20, timeout_ms=600_000)
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
    terms = msgspec.structs.replace(UNHURRIED, compression=compression)
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


def pages_of_bytes(data: bytes) -> Pages:
    return Pages(runs_of(np.arange(len(data) // PAGE_SIZE)), memoryview(data))


async def test_a_frame_that_no_codec_makes_shorter_goes_as_it_is() -> None:
    compressing = Compressing("zstd")
    compressing.begin()
    body = pages_of_bytes(np.random.default_rng(1).bytes(64 * PAGE_SIZE))
    codec = compressing.codec_for(body, still=False, offered=True)
    assert codec is Codec.ZSTD
    assert (await compressing.made(body, codec)).body is body
    assert compressing.last is None
    assert compressing.codec_for(Heartbeat(), still=False, offered=True) is None
    assert compressing.codec_for(body, still=False, offered=False) is None


async def test_a_compressed_frame_keeps_its_runs_and_digests() -> None:
    compressing = Compressing("lz4")
    compressing.begin()
    digests = np.arange(4, dtype=np.uint64)
    body = replace(pages_of_bytes(bytes(range(256)) * 64), digests=digests)
    made = (await compressing.made(body, compressing.codec_for(body, still=True, offered=True))).body
    assert isinstance(made, CompressedPages)
    assert (made.codec, made.page_bytes) == (Codec.LZ4, 4 * PAGE_SIZE)
    assert made.runs is body.runs
    assert made.digests is digests


async def test_several_frames_are_with_a_codec_at_once_and_each_is_its_own() -> None:
    compressing = Compressing("zstd")
    bodies = [pages_of_bytes(bytes([number]) * 4 * PAGE_SIZE) for number in range(AHEAD)]
    made = await asyncio.gather(*(compressing.made(body, Codec.ZSTD) for body in bodies))
    for body, each in zip(bodies, made, strict=True):
        assert isinstance(each.body, CompressedPages)
        assert Decompressor().page_data(Codec.ZSTD, each.body.data, 4 * PAGE_SIZE) == body.data


async def sent_over(bytes_per_s: float, frames: int, frame_bytes: int = 1 << 20) -> list[type[object]]:
    """Send frames that compress well over a link that is waited for, and return what they were sent as."""
    compressing = Compressing("auto")
    compressing.limit(frame_bytes)
    body = pages_of_bytes(bytes(range(256)) * (frame_bytes // 256))
    kinds: list[type[object]] = []
    for number in range(frames):
        if number % 50 == 0:
            compressing.begin()
        if compressing.wants_sample(body, still=False, offered=True):
            await compressing.sample(body)
        made = await compressing.made(body, compressing.codec_for(body, still=False, offered=True))
        assert isinstance(made.body, Pages | CompressedPages)
        kinds.append(type(made.body))
        began_ns = loop_ns()
        await asyncio.sleep(len(made.body.data) / bytes_per_s)  # the wire that takes so long
        compressing.sent(made, began_ns, still=False)
    assert not compressing.wants_sample(body, still=True, offered=True)
    still = compressing.codec_for(body, still=True, offered=True)
    assert (still is not None) == (kinds[-1] is CompressedPages)
    return kinds


def test_auto_compresses_once_it_has_seen_how_slow_the_link_is() -> None:
    loop = VirtualLoop(1)
    try:
        kinds = loop.run_until_complete(sent_over(120e6, 100))
    finally:
        loop.close()
    assert kinds[:14] == [Pages] * 14  # what fills the link's buffers, and what is measured
    assert kinds[14:] == [CompressedPages] * 86


def test_auto_compresses_under_a_bandwidth_that_makes_every_frame_small() -> None:
    loop = VirtualLoop(1)
    try:
        kinds = loop.run_until_complete(sent_over(4e6, 300, frame_bytes=64 << 10))
    finally:
        loop.close()
    assert kinds[:224] == [Pages] * 224  # the same 14 MiB
    assert kinds[224:] == [CompressedPages] * 76
