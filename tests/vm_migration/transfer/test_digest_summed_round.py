"""Data that are read to where they belong before anything is known of them: what is stale, and what is proven."""

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.errors import BadContents, OutOfSequence, PageOutsideRound, WrongStream
from vm_migration.transfer.frames import Frame, Pages, PagesToCome
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.outgoing import OutgoingStream
from vmm.memory.dirty_bitmap import DirtyBitmap

ATTEMPT = UUID("6d0f4d3c-8a55-4f0e-9f19-0d4b87f7a1ce")
PAGES = 300


def source_ram() -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    words = np.arange(1, PAGES * 512 + 1, dtype=np.uint64).reshape(PAGES, 512)
    words[7] = 0
    return words


def frames_of(words: np.ndarray[tuple[int, int], np.dtype[np.uint64]], dirty: DirtyBitmap, number: int) -> list[Frame]:
    stream = OutgoingStream(ATTEMPT, 0, payload_bytes=64 * 4096)
    return list(stream.round(number, words, dirty, digested=True, digest_summed=True))


def by_head(image: IncomingImage, frame: Frame) -> None:
    """Take a frame as a stream does that reads the data to their place."""
    body = frame.body
    assert isinstance(body, Pages)
    assert body.digests is not None
    coming = PagesToCome(frame.place, body.runs, body.digests)
    at = 0
    for view in image.expect(coming, 0):
        view[:] = body.data[at : at + len(view)]
        at += len(view)
    assert at == len(body.data)
    image.arrived(coming, 0)


@given(st.sets(st.integers(0, PAGES - 1), min_size=1), st.data())
@settings(max_examples=60)
def test_by_head_or_as_a_whole_it_comes_to_the_same(chosen: set[int], data: st.DataObject) -> None:
    source = source_ram()
    dirty = DirtyBitmap.from_pages(PAGES, np.array(sorted(chosen), dtype=np.int64))
    frames = frames_of(source, dirty, 0)
    images = []
    for heads in (False, True):
        ram = np.zeros_like(source)
        image = IncomingImage(ram, ATTEMPT, 1)
        image.open_round(0, dirty)
        for frame in frames:
            if heads and isinstance(frame.body, Pages) and data.draw(st.booleans()):
                by_head(image, frame)
            else:
                image.apply(frame, 0)
        assert (ram[sorted(chosen)] == source[sorted(chosen)]).all()
        images.append(image)
    whole, headed = images
    assert whole.whole
    assert headed.whole
    assert headed.verify() == whole.verify()
    assert headed.verify().pages_verified == len(chosen)
    assert headed.received_pages == whole.received_pages == len(chosen)


def opened() -> tuple[IncomingImage, list[Frame]]:
    source = source_ram()
    image = IncomingImage(np.zeros_like(source), ATTEMPT, 1)
    image.open_round(0, DirtyBitmap.full(PAGES))
    return image, [frame for frame in frames_of(source, DirtyBitmap.full(PAGES), 0) if isinstance(frame.body, Pages)]


def test_pages_stay_stale_until_their_data_have_their_digests() -> None:
    image, (frame, *_) = opened()
    body = frame.body
    assert isinstance(body, Pages)
    assert body.digests is not None
    coming = PagesToCome(frame.place, body.runs, body.digests)
    for view in image.expect(coming, 0):
        view[:] = bytes([255]) * len(view)
    assert image.stale_pages == PAGES
    with pytest.raises(BadContents, match="Page 0 came with the digest of other contents"):
        image.arrived(coming, 0)
    assert image.stale_pages == PAGES
    assert image.unverified().count() == PAGES


def test_damaged_data_that_came_as_a_whole_are_refused_too() -> None:
    image, (frame, *_) = opened()
    body = frame.body
    assert isinstance(body, Pages)
    body.data[5000] ^= 1
    with pytest.raises(BadContents, match="Page 1 "):
        image.apply(frame, 0)
    assert image.stale_pages == PAGES


def test_a_head_is_held_to_the_rules_of_frames() -> None:
    image, frames = opened()
    bodies = [frame.body for frame in frames if isinstance(frame.body, Pages)]
    first, second = (
        PagesToCome(f.place, b.runs, b.digests)
        for f, b in zip(frames[:2], bodies, strict=False)
        if b.digests is not None
    )
    with pytest.raises(OutOfSequence):
        image.expect(second, 0)
    with pytest.raises(WrongStream):
        image.expect(first, 1)
    by_head(image, frames[0])
    again = PagesToCome(second.place, first.runs, first.digests)
    with pytest.raises(PageOutsideRound, match="Page 0 "):
        image.expect(again, 0)
    outside = PagesToCome(second.place, np.array([(PAGES - 1, 2)], dtype=np.uint32), first.digests[:2])
    with pytest.raises(PageOutsideRound, match=f"past the block's {PAGES}"):
        image.expect(outside, 0)
