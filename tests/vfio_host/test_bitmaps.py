"""Bitmaps of answers: every way of making one says the same bits, and as little as it can."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.bits import ones
from vfio_host.interface.answers import Bitmap
from vfio_host.interface.bitmaps import BitmapBuilder, bitmap_bytes, dense, encoded_room

BITS = 5000
RUNS = st.lists(st.tuples(st.integers(0, BITS - 1), st.integers(1, 1500)), max_size=8)
NUMBERS = st.lists(st.tuples(st.integers(0, BITS - 1), st.integers(1, 1 << 80)), max_size=12)


def bits_of(first: int, number: int) -> set[int]:
    return {first + place for place in range(number.bit_length()) if number >> place & 1}


def lowest(first: int, number: int) -> int:
    return first + (number & -number).bit_length()


@settings(max_examples=400)
@given(RUNS, NUMBERS)
def test_what_is_built_is_what_was_added(runs: list[tuple[int, int]], numbers: list[tuple[int, int]]) -> None:
    builder, expected = BitmapBuilder(BITS), set[int]()
    added = [(first, (1 << count) - 1, True) for first, count in runs]
    added += [(first, number, False) for first, number in numbers]
    for first, number, run in sorted(added, key=lambda item: lowest(*item[:2])):
        expected |= bits_of(first, number)
        if run:
            builder.add_run(first, number.bit_length())
        else:
            builder.add_bits(first, number)
    built = builder.built()
    assert ones(built) == sorted(bit for bit in expected if bit < BITS)
    assert len(msgspec.msgpack.encode(built)) <= 64 + encoded_room(built)


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


@pytest.mark.parametrize(("bits", "expected"), [(0, 0), (1, 8), (64, 8), (65, 16), (1 << 31, 1 << 28)])
def test_the_kernels_bitmaps_are_whole_words(bits: int, expected: int) -> None:
    assert bitmap_bytes(bits) == expected


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 199), st.integers(1, 60)), max_size=6), st.binary(max_size=25))
def test_dense_is_runs_or_parts(runs: list[tuple[int, int]], part: bytes) -> None:
    bits = {bit for first, count in runs for bit in range(first, min(first + count, 200))}
    bits |= bits_of(0, int.from_bytes(part, "little"))
    cut = tuple((first, min(count, 200 - first)) for first, count in runs)
    data = dense(Bitmap(bits=200, runs=cut, parts=((0, part),)))
    assert len(data) == bitmap_bytes(200)
    assert bits_of(0, int.from_bytes(data, "little")) == bits
