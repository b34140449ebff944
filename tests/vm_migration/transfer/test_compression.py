"""The choice of a codec on links and processors that are given by their figures, frame by frame."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.compression import AutoCompression, Sample, Sent
from vm_migration.transfer.frames import Codec

MIB = 1 << 20
GBIT = 8.4e-3
"""Seconds a MiB takes over 1 Gbit/s."""


@dataclass(frozen=True)
class Work:
    """What a codec does with a MiB of pages: seconds at the source, what is left of it, seconds at the destination."""

    seconds: float
    ratio: float
    unpacking: float = 0.0


@dataclass(frozen=True)
class World:
    """Seconds a MiB of pages takes: of the source's work, on the wire, of the destination's work."""

    busy: float
    wire: float
    applying: float
    codecs: dict[Codec, Work]
    ahead: int = 0
    """How many processors the source has for codecs beside its other work."""

    def seconds(self, codec: Codec | None) -> float:
        work = Work(0.0, 1.0) if codec is None else self.codecs[codec]
        source = max(self.busy, work.seconds / self.ahead) if self.ahead else self.busy + work.seconds
        return max(source, work.ratio * self.wire, self.applying + work.unpacking)

    def frame(self, codec: Codec | None) -> Sent:
        seconds = self.seconds(codec)
        if codec is None:
            return Sent(MIB, seconds, seconds - self.busy)
        work = self.codecs[codec]
        sample = Sample(MIB, int(work.ratio * MIB), work.seconds)
        return Sent(MIB, seconds, max(0.0, seconds - self.busy - work.seconds), sample)


@dataclass
class Run:
    """So many MiB through a choice; the world may be another one for each."""

    world: Callable[[int], World]
    frames: int
    ahead: int = 0
    """How many processors it is told that there are."""
    seconds: float = 0.0
    plainly: float = 0.0
    best: float = 0.0
    chosen: list[Codec | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        auto = AutoCompression(self.ahead)
        for at in range(self.frames):
            world = self.world(at)
            if auto.wants_sample:
                samples = {
                    codec: Sample(MIB // 8, int(work.ratio * MIB / 8), work.seconds / 8)
                    for codec, work in world.codecs.items()
                }
                took = sum(sample.seconds for sample in samples.values())
                auto.sampled(samples, took)
                self.seconds += took
            frame = world.frame(auto.codec)
            self.chosen.append(auto.codec)
            auto.sent(frame)
            self.seconds += frame.seconds
            self.plainly += world.seconds(None)
            self.best += min(world.seconds(codec) for codec in (None, *Codec))


def text(unpacking: float = 0.5e-3) -> dict[Codec, Work]:
    return {Codec.LZ4: Work(1.6e-3, 0.5, unpacking / 2), Codec.ZSTD: Work(3.2e-3, 0.3, unpacking)}


NOISE = {Codec.LZ4: Work(0.3e-3, 1.0), Codec.ZSTD: Work(1.0e-3, 1.0)}
SLOW_LINK = World(0.6e-3, GBIT, 0.5e-3, text())
LOOPBACK = World(0.6e-3, 0.3e-3, 0.5e-3, text())

milliseconds = st.floats(0.05e-3, 12e-3)
works = st.builds(Work, milliseconds, st.floats(0.02, 1.0), st.floats(0.0, 6e-3))
processors = st.integers(0, 2)
worlds = st.builds(
    World, milliseconds, milliseconds, milliseconds, st.fixed_dictionaries(dict.fromkeys(Codec, works)), processors
)


@given(worlds, processors)
@settings(max_examples=60)
def test_two_gib_take_at_most_a_twentieth_longer_than_without_a_codec(world: World, ahead: int) -> None:
    run = Run(lambda _at: world, 2048, ahead)
    assert run.seconds <= 1.05 * run.plainly


@given(worlds, worlds, st.integers(1, 2000), processors)
@settings(max_examples=60)
def test_nor_do_they_where_link_and_pages_change_on_the_way(
    first: World, second: World, change: int, ahead: int
) -> None:
    run = Run(lambda at: first if at < change else second, 2048, ahead)
    assert run.seconds <= 1.05 * run.plainly + 0.5


def test_over_a_gigabit_the_codec_is_taken_that_is_fastest() -> None:
    run = Run(lambda _at: SLOW_LINK, 1024)
    assert run.chosen[-1] is Codec.ZSTD
    assert run.seconds <= 1.15 * run.best


def test_where_frames_are_compressed_beside_each_other_a_slower_codec_pays() -> None:
    slow = {Codec.LZ4: Work(2.0e-3, 0.65), Codec.ZSTD: Work(7.0e-3, 0.5)}
    run = Run(lambda _at: replace(SLOW_LINK, codecs=slow, ahead=2), 1024, 2)
    assert run.chosen[-1] is Codec.ZSTD
    assert run.seconds <= 1.15 * run.best


def test_processors_that_are_promised_and_not_there_are_noticed() -> None:
    slow = {Codec.LZ4: Work(2.0e-3, 0.65), Codec.ZSTD: Work(12.0e-3, 0.5)}
    run = Run(lambda _at: replace(SLOW_LINK, codecs=slow), 1024, 2)
    assert run.chosen[-1] is Codec.LZ4
    assert run.seconds <= 1.15 * run.best


def test_where_a_codec_is_what_bounds_sending_the_quicker_one_is_taken() -> None:
    slow = {Codec.LZ4: Work(1.0e-3, 0.5), Codec.ZSTD: Work(7.0e-3, 0.4)}
    run = Run(lambda _at: replace(SLOW_LINK, codecs=slow), 1024)
    assert run.chosen[-1] is Codec.LZ4
    assert run.seconds <= 1.15 * run.best


@pytest.mark.parametrize("codecs", [text(), NOISE])
def test_a_link_that_is_faster_than_the_codecs_has_none(codecs: dict[Codec, Work]) -> None:
    run = Run(lambda _at: replace(LOOPBACK, codecs=codecs), 2048)
    assert set(run.chosen) == {None}
    assert run.seconds <= 1.01 * run.plainly


def test_pages_that_no_codec_makes_fewer_go_without_one() -> None:
    run = Run(lambda _at: replace(SLOW_LINK, codecs=NOISE), 1024)
    assert set(run.chosen) == {None}
    assert run.seconds <= 1.02 * run.plainly


def test_a_codec_is_given_up_where_the_destination_is_too_slow_for_it() -> None:
    run = Run(lambda _at: World(0.6e-3, 4e-3, 3e-3, text(unpacking=30e-3)), 2048)
    assert run.seconds <= 1.05 * run.plainly
    assert run.chosen.count(None) > 2048 * 0.9


def test_a_link_that_becomes_slow_gets_a_codec_and_one_that_becomes_fast_loses_it() -> None:
    run = Run(lambda at: SLOW_LINK if 500 <= at < 1500 else LOOPBACK, 3000)
    assert set(run.chosen[:500]) == {None}
    assert run.chosen[600:1500].count(Codec.ZSTD) > 700
    assert set(run.chosen[2100:]) == {None}


def test_a_link_that_drops_while_a_codec_is_in_use_keeps_it() -> None:
    run = Run(lambda at: SLOW_LINK if at < 500 else replace(SLOW_LINK, wire=0.16), 1000)
    assert run.chosen[550:].count(Codec.ZSTD) > 400


def test_a_codec_that_promised_much_is_given_up_where_it_takes_many_times_that() -> None:
    packed = {Codec.LZ4: Work(8e-3, 1.0), Codec.ZSTD: Work(0.06e-3, 0.06, unpacking=4e-3)}
    run = Run(lambda _at: World(0.05e-3, 8e-3, 8e-3, packed), 2048)
    assert run.seconds <= 1.05 * run.plainly


def test_small_frames_say_nothing_and_change_nothing() -> None:
    auto = AutoCompression()
    for _ in range(1000):
        auto.sent(Sent(4096, 1.0, 0.9))
    assert auto.codec is None
    assert not auto.wants_sample
    assert auto.settled() is None


@pytest.mark.parametrize("size", [4096, 64 << 10])
def test_frames_that_a_small_bandwidth_makes_small_say_what_large_ones_do(size: int) -> None:
    auto = AutoCompression()
    auto.limit(size)
    second = size / 4e6
    for _ in range(14 * MIB // size):
        auto.sent(Sent(size, second, 0.9 * second))
        if auto.wants_sample:
            auto.sampled({Codec.LZ4: Sample(size, size // 2, 1e-6 * size / 1000)}, 1e-5)
    assert auto.codec is Codec.LZ4


def plainly(auto: AutoCompression, mib: int, seconds: float, busy: float) -> None:
    for _ in range(mib):
        auto.sent(Sent(MIB, seconds, seconds - busy))


def test_what_fills_a_links_buffers_after_a_pause_says_nothing_of_the_link() -> None:
    auto = AutoCompression()
    plainly(auto, 30, GBIT, 0.6e-3)
    assert auto.waits
    for _ in range(20):  # rounds of 8 MiB, of which the first go as fast as they are made
        auto.resume()
        plainly(auto, 6, 0.6e-3, 0.6e-3)
        plainly(auto, 2, GBIT, 0.6e-3)
        assert auto.waits


def test_deltas_that_were_worth_it_outlast_a_crowded_moment_and_no_more() -> None:
    auto = AutoCompression()
    plainly(auto, 30, GBIT, 0.6e-3)
    plainly(auto, 8, GBIT, 8e-3)
    assert auto.waits
    plainly(auto, 200, GBIT, 8e-3)
    assert not auto.waits
    plainly(auto, 100, GBIT, 6.5e-3)
    assert not auto.waits  # which would not have ended them
