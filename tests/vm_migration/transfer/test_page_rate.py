"""At what rate pages come across, given the wire and what codecs make of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_migration.transfer.frames import Codec
from vm_migration.transfer.page_rate import GAIN, Packing, page_rate
from vm_migration.transfer.ranges import Range

WIRE = Range.around(100e6, 0.1)
ranges = st.tuples(*[st.floats(1e6, 1e10)] * 3).map(lambda three: Range(*sorted(three)))
ratios = st.tuples(*[st.floats(0.01, 1)] * 3).map(lambda three: Range(*sorted(three)))
packings = st.tuples(
    st.builds(Packing, st.just(Codec.LZ4), ratios, st.floats(1e6, 1e10)),
    st.builds(Packing, st.just(Codec.ZSTD), ratios, st.floats(1e6, 1e10)),
)


def test_pages_that_become_half_come_across_twice_as_fast() -> None:
    half = Packing(Codec.LZ4, Range.exactly(0.5), 1e12)
    assert page_rate(WIRE, [half], "lz4").likely == 2 * WIRE.likely
    assert page_rate(WIRE, [half], "auto") == page_rate(WIRE, [half], "lz4")
    assert page_rate(WIRE, [half], "none") == WIRE


def test_a_codec_that_is_slower_than_the_wire_is_waited_for_where_it_was_named_and_not_taken_otherwise() -> None:
    slow = Packing(Codec.ZSTD, Range.exactly(0.5), 60e6)
    assert page_rate(WIRE, [slow], "zstd").likely == 60e6
    assert page_rate(WIRE, [slow], "auto") == WIRE


def test_pages_that_no_codec_was_given_come_across_as_they_are() -> None:
    for compression in ("auto", "none", "lz4", "zstd"):
        assert page_rate(WIRE, [], compression) == WIRE


@given(ranges, packings)
def test_a_choice_is_no_slower_than_none_and_within_a_twentieth_of_the_best(
    wire: Range, each: tuple[Packing, ...]
) -> None:
    chosen = page_rate(wire, each, "auto")
    best = max(page_rate(wire, each, name).likely for name in ("none", "lz4", "zstd"))
    assert wire.likely <= chosen.likely <= best
    assert chosen.likely >= GAIN * best


@given(ranges, packings, st.floats(1, 10))
def test_a_faster_wire_never_carries_fewer_pages(wire: Range, each: tuple[Packing, ...], factor: float) -> None:
    faster = wire.product(Range.exactly(factor))
    for name in ("none", "lz4", "zstd"):
        assert page_rate(faster, each, name).likely >= page_rate(wire, each, name).likely * (1 - 1e-9)


@pytest.mark.parametrize("name", ["none", "lz4", "zstd"])
@given(wire=ranges, each=packings)
def test_a_codec_carries_no_more_than_it_takes_in(name: str, wire: Range, each: tuple[Packing, ...]) -> None:
    speeds = {packing.codec.name.lower(): packing.bytes_per_s for packing in each}
    assert page_rate(wire, each, name).likely <= speeds.get(name, wire.likely)


@given(wire=ranges, each=packings, came=ranges)
def test_what_came_across_of_late_is_the_most_that_a_codec_is_believed_to_carry(
    wire: Range, each: tuple[Packing, ...], came: Range
) -> None:
    found = page_rate(wire, each, "auto", came=came)
    assert found.likely <= page_rate(wire, each, "auto").likely
    assert found == wire or found.likely <= came.likely
