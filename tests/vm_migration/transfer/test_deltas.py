"""Pages that are sent again as what changed in them: the destination has what the source has, whatever happened."""

import tracemalloc
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.errors import WrongBase
from vm_migration.transfer.frames import Codec, CompressedPages, Frame, Pages
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.outgoing import OutgoingRound, OutgoingStream
from vm_migration.transfer.sent_pages import SentPages, memory_for
from vm_migration.transfer.unsent import UnsentSet
from vm_migration.wire.frame import decode, encode
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE

ATTEMPT = UUID(int=1)
PAGES = 24
PAYLOAD = 4 * (4096 + 16)


class Journey:
    """Source, streams and destination, through rounds in which the guest writes."""

    def __init__(self, slots: int, streams: int = 1) -> None:
        self.source = np.random.default_rng(3).integers(1, 2**63, (PAGES, 512), dtype=np.uint64)
        self.image = IncomingImage(np.zeros((PAGES, 512), dtype=np.uint64), ATTEMPT, streams)
        self.remembered = SentPages(slots * 4096)
        self.unsent = UnsentSet(PAGES)
        self.unsent.harvest(DirtyBitmap.full(PAGES))
        self.deltas = 0
        self._streams = [OutgoingStream(ATTEMPT, each, payload_bytes=PAYLOAD) for each in range(streams)]

    def write(self, page: int, word: int, value: int) -> None:
        self.source[page, word] = value
        self.unsent.harvest(DirtyBitmap.from_pages(PAGES, np.array([page])))

    def fill(self, page: int, value: int) -> None:
        self.source[page] = value
        self.unsent.harvest(DirtyBitmap.from_pages(PAGES, np.array([page])))

    def round(self, *, cut_after: int | None = None) -> list[Frame]:
        """Send a round, at most so many frames of pages of each stream, through the wire's form."""
        opened = self.unsent.open_round(len(self._streams))
        self.image.open_round(opened.number, opened.bitmap)
        sent: list[Frame] = []
        for stream, share in zip(self._streams, opened.shares, strict=True):
            remembered = self.remembered if opened.number else None
            part = stream.round(opened.number, self.source, share, digested=True, remembered=remembered)
            made = self._frames(part, cut_after)
            for frame in made:
                self.image.apply(decode(encode(frame)), stream.stream)
            self.unsent.acknowledge(opened.number, stream.stream, part.unsent)
            self.deltas += part.delta_pages
            sent += made
        return sent

    @staticmethod
    def _frames(part: OutgoingRound, cut_after: int | None) -> list[Frame]:
        frames: list[Frame] = []
        if cut_after != 0:
            for frame in part.pages():
                frames.append(frame)
                if len(frames) == cut_after:
                    break
        return [*frames, part.barrier()]

    def require_equal(self) -> None:
        assert self.image.whole
        assert (self.image._words == self.source).all()
        assert self.image.verify().whole


steps = st.one_of(
    st.tuples(st.just("write"), st.integers(0, PAGES - 1), st.integers(0, 511), st.integers(0, 9)),
    st.tuples(st.just("fill"), st.integers(0, PAGES - 1), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("round"), st.integers(0, 8), st.just(0), st.just(0)),
    st.tuples(st.just("clear"), st.just(0), st.just(0), st.just(0)),
)


@given(st.lists(steps, max_size=60), st.integers(1, PAGES + 3), st.integers(1, 3))
@settings(max_examples=150)
def test_whatever_is_written_cut_and_forgotten_the_destination_has_it(
    done: list[tuple[str, int, int, int]], slots: int, streams: int
) -> None:
    journey = Journey(slots, streams)
    for step, first, second, third in done:
        match step:
            case "write":
                journey.write(first, second, third)
            case "fill":
                journey.fill(first, second)
            case "round":
                journey.round(cut_after=first if first < 5 else None)
            case _:
                journey.remembered.clear()
    journey.round()
    journey.require_equal()


def test_a_page_that_changes_a_little_each_round_goes_as_little() -> None:
    journey = Journey(PAGES)
    journey.round()
    sizes = []
    for number in range(1, 5):
        for page in range(PAGES):
            journey.write(page, 8 * number, number)
        sizes.append(sum(len(encode(frame)) for frame in journey.round()))
    journey.require_equal()
    assert journey.deltas == 3 * PAGES  # round 1 is the first that is remembered
    assert max(sizes[1:]) < sizes[0] / 20
    assert (journey.remembered.found, journey.remembered.looked_up) == (3 * PAGES, 4 * PAGES)


def test_a_page_that_changes_all_over_goes_as_it_is() -> None:
    journey = Journey(PAGES)
    for number in range(4):
        for page in range(PAGES):
            journey.fill(page, 1000 * number + page + 1)
        frames = journey.round()
        assert not any(isinstance(frame.body, CompressedPages) for frame in frames)
    journey.require_equal()


def test_pages_of_one_batch_are_deltas_and_others_each_in_their_frame() -> None:
    journey = Journey(PAGES)
    journey.round()
    frames: list[Frame] = []
    for number in (1, 2):
        for page in (3, 4, 9):
            journey.write(page, 100, number)
        journey.fill(5, number)
        frames = journey.round()
    delta, rest = (frame.body for frame in frames[:2])
    assert isinstance(delta, CompressedPages)
    assert isinstance(rest, Pages)
    assert delta.runs.tolist() == [[3, 2], [9, 1]]
    assert delta.bases is not None
    assert delta.bases.tolist() == [1, 1, 1]
    assert rest.runs.tolist() == [[5, 1]]
    journey.require_equal()


def test_a_memory_that_is_too_small_keeps_its_first_pages() -> None:
    journey = Journey(PAGES // 2)
    journey.round()
    for number in range(1, 6):
        for page in range(PAGES):
            journey.write(page, 8 * number, number)
        journey.round()
    journey.require_equal()
    assert journey.deltas == 4 * PAGES // 2


def test_a_delta_against_another_round_is_refused_and_changes_nothing() -> None:
    journey = Journey(PAGES)
    journey.round()
    for number in (1, 2):
        journey.write(3, 100, number)
        journey.write(4, 100, number)
        journey.round()
    opened = DirtyBitmap.from_pages(PAGES, np.array([0, 3, 4]))
    journey.image.open_round(3, opened)
    journey.source[3:5, 100] = 7
    stream = journey._streams[0]
    part = stream.round(3, journey.source, opened - DirtyBitmap.from_pages(PAGES, np.array([0])))
    frame = next(part.pages())
    body = frame.body
    assert isinstance(body, Pages)
    good = journey.remembered.deltas(np.array([3, 4]), journey.source[3:5])
    assert good.bases.tolist() == [2, 2]
    packed = CompressedPages(body.runs, Codec.LZ4, memoryview(_packed(good.changes)), None, good.bases)
    before = journey.image._words.copy()
    for bases in ([1, 2], [2, 1]):
        with pytest.raises(WrongBase):
            journey.image.apply(replace(frame, body=replace(packed, bases=np.array(bases, dtype=np.uint32))), 0)
    never_again = replace(packed, runs=np.array([[0, 1], [4, 1]], dtype=np.uint32))
    with pytest.raises(WrongBase, match="Page 0"):
        journey.image.apply(replace(frame, body=never_again), 0)
    assert (journey.image._words == before).all()
    assert journey.image.stale_pages == 3
    journey.image.apply(replace(frame, body=packed), 0)
    assert (journey.image._words[3:5] == journey.source[3:5]).all()


def _packed(changes: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> bytes:
    from vm_migration.transfer.codecs import Compressor

    return Compressor().compressed(Codec.LZ4, changes.data.cast("B"))


def test_what_is_remembered_is_a_quarter_of_ram_and_not_too_much() -> None:
    sizes = {1: 1, 64: 64, 100: 64, 512: 128, 1024: 256, 1 << 20: 256}
    assert {size: memory_for(size << 20) >> 20 for size in sizes} == sizes


def test_what_is_forgotten_takes_no_memory() -> None:
    remembered = SentPages(4096 * PAGE_SIZE)
    pages = np.arange(1024)
    rows = np.ones((1024, PAGE_SIZE // 8), dtype=np.uint64)
    tracemalloc.start()
    try:
        remembered.remember(pages, rows, 1)
        held, _ = tracemalloc.get_traced_memory()
        remembered.clear()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held >= 4096 * PAGE_SIZE
    assert left < PAGE_SIZE * 16
    assert not remembered.deltas(pages, rows).chosen.any()
