import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.wire.bitmap_codec import decode_bitmap, encode_bitmap
from vm_migration.wire.errors import BitmapError
from vmm.memory.dirty_bitmap import DirtyBitmap

CHUNK = 65536


@st.composite
def bitmaps(draw: st.DrawFn) -> DirtyBitmap:
    pages = draw(st.integers(0, 300) | st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 77]))
    bitmap = DirtyBitmap(pages)
    if pages and draw(st.booleans()):
        generator = np.random.default_rng(draw(st.integers(0, 1000)))
        share = draw(st.sampled_from([0.001, 0.03, 0.5, 0.97]))
        bitmap.merge(DirtyBitmap.from_pages(pages, np.flatnonzero(generator.random(pages) < share)))
    for _ in range(draw(st.integers(0, 3)) if pages else 0):
        first = draw(st.integers(0, pages - 1))
        count = draw(st.integers(0, pages - first))
        change = bitmap.set_run if draw(st.booleans()) else bitmap.clear_run
        change(first, count)
    return bitmap


@given(bitmaps())
@settings(max_examples=60)
def test_a_bitmap_survives_and_is_never_much_longer_than_its_words(bitmap: DirtyBitmap) -> None:
    data = encode_bitmap(bitmap)
    assert decode_bitmap(bitmap.pages, data) == bitmap
    assert len(data) <= len(bitmap.to_bytes()) + -(-bitmap.pages // CHUNK)


@given(bitmaps(), st.data())
@settings(max_examples=60)
def test_what_is_accepted_is_what_would_have_been_written(bitmap: DirtyBitmap, data: st.DataObject) -> None:
    message = bytearray(encode_bitmap(bitmap))
    for _ in range(data.draw(st.integers(1, 3)) if message else 0):
        place = data.draw(st.integers(0, min(len(message), 12) - 1) | st.integers(0, len(message) - 1))
        message[place] = data.draw(st.integers(0, 255))
    try:
        read = decode_bitmap(bitmap.pages, bytes(message))
    except BitmapError:
        return
    assert encode_bitmap(read) == bytes(message)


@given(st.integers(0, 200), st.binary(max_size=60))
@settings(max_examples=100)
def test_arbitrary_bytes_are_refused_or_canonical(pages: int, message: bytes) -> None:
    try:
        read = decode_bitmap(pages, message)
    except BitmapError:
        return
    assert encode_bitmap(read) == message


def test_forms_are_as_the_protocol_says() -> None:
    bitmap = DirtyBitmap(4 * CHUNK)
    bitmap.set_run(CHUNK, CHUNK)
    bitmap.set_run(2 * CHUNK + 5, 3)
    bitmap.set_run(3 * CHUNK - 1, 2)
    runs = "02020005000200ffff0000"
    assert encode_bitmap(bitmap).hex() == "0001" + runs + "02010000000000"


def test_the_shorter_form_is_chosen_at_its_border() -> None:
    even = DirtyBitmap.from_pages(CHUNK, np.arange(0, 2 * 2047, 2))
    assert encode_bitmap(even)[0] == 2
    even.set_run(3 * 2047, 1)
    assert encode_bitmap(even)[0] == 3


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        (64, ""),
        (64, "0000"),
        (64, "04"),
        (64, "0201"),
        (64, "02010000"),
        (64, "020000"),  # no run: EMPTY
        (64, "02010000003f00"),  # all pages: FULL
        (64, "0201003f000100"),  # leaves the chunk
        (60, "0201003b000100"),  # leaves the block
        (256, "0202000000000001000000"),  # runs that touch
        (256, "0202000500000001000000"),  # runs that descend
        (64, "030100000000000000"),  # RUNS is shorter
        (64, "03ff"),
        (60, "0355555555555555f5"),  # bits past the last page
    ],
)
def test_what_is_not_canonical_is_refused(pages: int, message: str) -> None:
    with pytest.raises(BitmapError):
        decode_bitmap(pages, bytes.fromhex(message))
