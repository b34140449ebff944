"""Pages that travel compressed: they arrive, are verified, and what does not come to them changes nothing."""

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.codecs import Compressor
from vm_migration.transfer.digests import PageWords
from vm_migration.transfer.errors import BadContents, PageOutsideRound
from vm_migration.transfer.frames import Codec, CompressedPages, Frame, Pages
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.outgoing import OutgoingStream
from vm_migration.wire.frame import decode, encode
from vmm.memory.dirty_bitmap import DirtyBitmap

ATTEMPT = UUID(int=1)
PAGES = 40


def memory() -> PageWords:
    words = np.arange(PAGES, dtype=np.uint64).repeat(512).reshape(PAGES, 512)
    words[:, 7] = 99
    return words


def compressed(frame: Frame, codec: Codec) -> Frame:
    body = frame.body
    if not isinstance(body, Pages):
        return frame
    packed = Compressor().compressed(codec, body.data)
    return replace(frame, body=CompressedPages(body.runs, codec, memoryview(packed), body.digests))


def image_with_a_round(pages: DirtyBitmap) -> IncomingImage:
    image = IncomingImage(np.full((PAGES, 512), 5, dtype=np.uint64), ATTEMPT, 1)
    image.open_round(0, pages)
    return image


@given(st.sets(st.integers(0, PAGES - 1), min_size=1), st.lists(st.sampled_from(Codec), min_size=1), st.booleans())
@settings(max_examples=60)
def test_compressed_pages_arrive_as_they_were_and_are_verified(
    dirty: set[int], codecs: list[Codec], digested: bool
) -> None:
    source = memory()
    share = DirtyBitmap.from_pages(PAGES, np.array(sorted(dirty), dtype=np.int64))
    image = image_with_a_round(share)
    stream = OutgoingStream(ATTEMPT, 0, payload_bytes=4 * (4096 + 16))
    for at, frame in enumerate(stream.round(0, source, share, digested=digested)):
        image.apply(decode(encode(compressed(frame, codecs[at % len(codecs)]))), 0)
    assert image.whole
    assert (image._words[sorted(dirty)] == source[sorted(dirty)]).all()
    rest = sorted(set(range(PAGES)) - dirty)
    assert (image._words[rest] == 5).all()
    assert image.verify().pages_verified == (len(dirty) if digested else 0)


@pytest.mark.parametrize("codec", Codec)
def test_a_refused_frame_of_compressed_pages_changes_nothing(codec: Codec) -> None:
    share = DirtyBitmap.full(PAGES) - DirtyBitmap.from_pages(PAGES, np.array([0]))
    image = image_with_a_round(share)
    stream = OutgoingStream(ATTEMPT, 0)
    good = compressed(next(stream.round(0, memory(), share).pages()), codec)
    body = good.body
    assert isinstance(body, CompressedPages)
    fewer = replace(body, runs=np.array([[1, 2]], dtype=np.uint32))
    damaged = replace(body, data=body.data[:-1])
    outside = replace(body, runs=np.array([[0, PAGES - 1]], dtype=np.uint32))
    for wrong, error in ((fewer, BadContents), (damaged, BadContents), (outside, PageOutsideRound)):
        with pytest.raises(error):
            image.apply(replace(good, body=wrong), 0)
        assert (image._words == 5).all()
        assert image.stale_pages == PAGES - 1
    image.apply(good, 0)
    assert image.stale_pages == 0
