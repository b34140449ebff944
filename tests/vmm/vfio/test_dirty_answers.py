"""Bitmaps of the host's answers in RAM's own: whatever their form, page size and place."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vfio_host.interface.bitmaps import dense
from vfio_host.interface.calls import Bitmap
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.vfio.dirty_answers import mark, merge_answer
from vmm.vfio.ram_pieces import Piece

PAGES = 700
PAGE = 4096


@st.composite
def bitmaps(draw: st.DrawFn) -> Bitmap:
    bits = draw(st.integers(1, 300))
    starts = sorted(draw(st.sets(st.integers(0, bits - 1), max_size=3)))
    ends = [*starts[1:], bits] if starts else []
    runs = tuple((start, draw(st.integers(1, end - start))) for start, end in zip(starts, ends, strict=True))
    length = -(-bits // 8)
    first = draw(st.integers(0, length - 1))
    data = draw(st.binary(max_size=length - first))
    if first + len(data) == length and bits % 8 and data:
        data = data[:-1] + bytes([data[-1] & (1 << bits % 8) - 1])
    return Bitmap(bits, runs=runs, parts=((first, data),) if data else ())


@st.composite
def places(draw: st.DrawFn) -> tuple[Piece, ...]:
    count = draw(st.integers(1, 2))
    made, at, offset = [], 0, 0
    for _ in range(count):
        at += draw(st.integers(0, 80))
        offset += draw(st.integers(0, 150))
        size = draw(st.integers(1, 200))
        made.append(Piece(at * PAGE, offset * PAGE, size * PAGE))
        at, offset = at + size, offset + size
    return tuple(made)


@given(bitmaps(), places(), st.sampled_from([1, 4, 16]))
def test_bit_by_bit_or_all_at_once(bitmap: Bitmap, pieces: tuple[Piece, ...], pages_per_bit: int) -> None:
    found = DirtyBitmap(PAGES)
    merge_answer(found, bitmap, pages_per_bit * PAGE, pieces)
    expected = set()
    flags = np.unpackbits(np.frombuffer(dense(bitmap), dtype=np.uint8), bitorder="little")[: bitmap.bits]
    for bit in np.flatnonzero(flags).tolist():
        for page in range(bit * pages_per_bit, (bit + 1) * pages_per_bit):
            for piece in pieces:
                if piece.at <= page * PAGE < piece.at + piece.size:
                    expected.add((page * PAGE - piece.at + piece.offset) // PAGE)
    assert set(found.indexes().tolist()) == expected


def test_what_stands_for_no_ram_is_dropped() -> None:
    found = DirtyBitmap(PAGES)
    merge_answer(found, Bitmap(1 << 32, runs=((0, 1 << 32),), parts=((1 << 28, b"\xff" * 8),)), PAGE, ())
    assert not found


def test_a_terabyte_that_is_all_dirty_costs_a_run() -> None:
    found = DirtyBitmap(1 << 28)
    merge_answer(found, Bitmap(1 << 28, runs=((0, 1 << 28),)), PAGE, (Piece(0, 0, 1 << 40),))
    assert found.count() == 1 << 28


def test_marking_takes_whole_pieces() -> None:
    found = DirtyBitmap(PAGES)
    mark(found, (Piece(0, 0, PAGE), Piece(PAGE, 5 * PAGE, 2 * PAGE)))
    assert found.indexes().tolist() == [0, 5, 6]
