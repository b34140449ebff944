"""Bitmaps of answers: every way of making one says the same bits, and as little as it can."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.bits import count_ones, ones
from vfio_host.interface.answers import Bitmap
from vfio_host.interface.bitmaps import BitmapBuilder, bitmap_bytes, dense, encoded_room, merged, sparse

BITS = 5000
RUNS = st.lists(st.tuples(st.integers(0, BITS - 1), st.integers(1, 1500)), max_size=8)
NUMBERS = st.lists(st.tuples(st.integers(0, BITS - 1), st.integers(1, 1 << 80)), max_size=12)


def bits_of(first: int, number: int) -> set[int]:
    return {first + place for place in range(number.bit_length()) if number >> place & 1}


def lowest(item: tuple[int, int]) -> int:
    first, number = item
    return first + (number & -number).bit_length()


@settings(max_examples=200, deadline=None)
@given(RUNS, NUMBERS)
def test_what_is_built_is_what_was_added(runs: list[tuple[int, int]], numbers: list[tuple[int, int]]) -> None:
    builder, expected = BitmapBuilder(BITS), set[int]()
    for first, count in sorted(runs):
        builder.add_run(first, count)
        expected |= set(range(first, first + count))
    for first, number in sorted(numbers, key=lowest):
        builder.add_bits(first, number)
        expected |= bits_of(first, number)
    built = builder.built()
    assert ones(built) == sorted(bit for bit in expected if bit < BITS)
    assert len(msgspec.msgpack.encode(built)) <= 64 + encoded_room(built)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64 * 8).map(lambda data: data + bytes(-len(data) % 8)), st.integers(0, 500))
def test_sparse_and_dense_undo_each_other(data: bytes, zeros: int) -> None:
    data = data + bytes(zeros * 8) + data
    bitmap = sparse(data, len(data) * 8)
    assert dense(bitmap) == data
    assert sum(len(part) for _, part in bitmap.parts) <= 2 * len(data)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(RUNS, NUMBERS), max_size=4))
def test_a_merge_is_an_or(sources: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]]) -> None:
    bitmaps, expected = [], set[int]()
    for runs, numbers in sources:
        builder = BitmapBuilder(BITS)
        for first, count in sorted(runs):
            builder.add_run(first, count)
        for first, number in sorted(numbers, key=lowest):
            builder.add_bits(first, number)
        bitmaps.append(builder.built())
        expected |= set(ones(bitmaps[-1]))
    assert ones(merged(bitmaps)) == sorted(expected)


def test_bitmaps_of_different_ranges_do_not_merge() -> None:
    with pytest.raises(ValueError, match="8, 16 bits do not merge"):
        merged([Bitmap(bits=8), Bitmap(bits=16)])


def test_neighbours_join() -> None:
    builder = BitmapBuilder(1 << 40)
    for place in range(1000):
        builder.add_bits(place * 1024, (1 << 1024) - 1)
    for place in range(2000, 3000):
        builder.add_bits(place * 64, 0x8000000000000001)
    built = builder.built()
    assert built.runs == ((0, 1_024_000),)
    assert [(first, len(part)) for first, part in built.parts] == [(16_000, 8000)]


@given(st.integers(0, 40), st.integers(1, 100))
def test_runs_of_ones(first: int, count: int) -> None:
    assert ones(Bitmap(bits=160, runs=((first, count),))) == list(range(first, first + count))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, (1 << 20) - 1), max_size=200))
def test_scattered_bits_stay_small(pages: list[int]) -> None:
    flags = np.zeros(1 << 20, dtype=np.uint8)
    flags[pages] = 1
    data = np.packbits(flags, bitorder="little").tobytes()
    bitmap = sparse(data, 1 << 20)
    assert count_ones(bitmap) == len(set(pages))
    assert encoded_room(bitmap) <= 100 * len(set(pages))


@pytest.mark.parametrize(("bits", "expected"), [(0, 0), (1, 8), (64, 8), (65, 16), (1 << 31, 1 << 28)])
def test_the_kernels_bitmaps_are_whole_words(bits: int, expected: int) -> None:
    assert bitmap_bytes(bits) == expected
