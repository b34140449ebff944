"""Several streams that bring pages at once, right and wrong ones: what counts as come lies there, and as proven is so.

Data of digest-summed pages are written to RAM between two steps of an image, each stream's beside the others'. The
tests play any order of those steps, with streams that bring one page, lie of their digests, or end in the middle.
"""

from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.digests import PageWords
from vm_migration.transfer.errors import PageOutsideRound, TransferError
from vm_migration.transfer.frames import Barrier, Body, DigestArray, Frame, Pages, PagesToCome, Place, Zeros
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.page_runs import Runs
from vmm.memory.dirty_bitmap import DirtyBitmap

ATTEMPT = UUID(int=1)
PAGES = 5
STREAMS = 3


def contents(value: int, count: int) -> PageWords:
    rows = np.zeros((count, 512), dtype=np.uint64)
    rows[:] = value
    return rows


def digests(rows: PageWords) -> DigestArray:
    return np.array([xxhash.xxh3_64_intdigest(row.data) for row in rows], dtype=np.uint64)


@dataclass
class Brought:
    """What a stream's peer writes at this moment."""

    coming: PagesToCome
    places: list[memoryview]
    data: PageWords
    stated: PageWords

    @property
    def pages(self) -> range:
        first, count = self.coming.runs[0].tolist()
        return range(first, first + count)

    def write(self, part: int) -> None:
        for place in self.places:
            place[:part] = self.data.data.cast("B")[:part]


@dataclass
class Play:
    """An image, its streams, and what each page was said to hold by the frame that was taken last."""

    image: IncomingImage
    ram: PageWords
    said: PageWords = field(default_factory=lambda: np.zeros((PAGES, 512), dtype=np.uint64))
    sequence: list[int] = field(default_factory=lambda: [0] * STREAMS)
    at_work: dict[int, Brought] = field(default_factory=dict)
    came: set[int] = field(default_factory=set)
    over: set[int] = field(default_factory=set)
    value: int = 0

    def place(self, stream: int) -> Place:
        return Place(ATTEMPT, 0, stream, self.sequence[stream])

    def new(self, count: int) -> PageWords:
        self.value += 1
        return contents(self.value, count)

    def begin(self, stream: int, runs: Runs, *, honest: bool) -> None:
        count = int(runs[0, 1])
        stated = self.new(count)
        data = stated if honest else self.new(count)
        coming = PagesToCome(self.place(stream), runs, digests(stated))
        self.at_work[stream] = Brought(coming, self.image.expect(coming, stream), data, stated)

    def end(self, stream: int) -> None:
        brought = self.at_work.pop(stream)
        brought.write(len(brought.data.data.cast("B")))
        try:
            self.image.arrived(brought.coming, stream)
        except TransferError:
            self.came -= set(brought.pages)
            raise
        self.taken(stream, brought.pages, brought.stated)

    def whole(self, stream: int, runs: Runs, *, summed: bool) -> None:
        rows = self.new(int(runs[0, 1]))
        self.apply(stream, Pages(runs, rows.data.cast("B"), digests(rows), summed))
        self.taken(stream, range(int(runs[0, 0]), int(runs[0, 0]) + len(rows)), rows)

    def zeros(self, stream: int, runs: Runs) -> None:
        self.apply(stream, Zeros(runs, digested=True))
        count = int(runs[0, 1])
        self.taken(stream, range(int(runs[0, 0]), int(runs[0, 0]) + count), contents(0, count))

    def apply(self, stream: int, body: Body) -> None:
        self.image.apply(Frame(self.place(stream), body), stream)

    def taken(self, stream: int, pages: range, rows: PageWords) -> None:
        assert self.came.isdisjoint(pages), "a page comes once"
        self.came |= set(pages)
        self.sequence[stream] += 1
        self.said[pages.start : pages.stop] = rows

    def holds(self) -> None:
        """Check what must hold at any moment."""
        written = {page for brought in self.at_work.values() for page in brought.pages}
        unproven = self.image.unverified()
        for page in set(range(PAGES)) - written:
            if page not in self.image._stale:
                assert (self.ram[page] == self.said[page]).all(), f"page {page} counts as come"
            if page not in unproven:
                assert (self.ram[page] == self.said[page]).all(), f"page {page} counts as proven"
        assert self.image.stale_pages == PAGES - len(self.came)
        if self.image.closed:
            assert not written


runs_of_pages = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 3)).map(
    lambda run: np.array([(run[0], min(run[1], PAGES - run[0]))], dtype=np.uint32)
)
steps = st.tuples(
    st.sampled_from(["begin", "begin", "lie", "part", "end", "end", "whole", "summed", "zeros", "break", "barrier"]),
    st.integers(0, STREAMS - 1),
    runs_of_pages,
    st.integers(1, 4095),
)


def step(play: Play, what: str, stream: int, runs: Runs, part: int) -> None:
    """Do one thing on one stream, if it can be done there."""
    busy = stream in play.at_work
    match what:
        case "part" if busy:
            play.at_work[stream].write(part)
        case "end" if busy:
            play.end(stream)
        case "break" if busy:
            play.over.add(stream)  # and what it wrote is left as it is
        case "begin" | "lie" if not busy:
            play.begin(stream, runs, honest=what == "begin")
        case "whole" | "summed" if not busy:
            play.whole(stream, runs, summed=what == "summed")
        case "zeros" if not busy:
            play.zeros(stream, runs)
        case "barrier" if not busy:
            play.apply(stream, Barrier(cut=True))
            play.over.add(stream)


@given(st.lists(steps, max_size=40))
@settings(max_examples=300)
def test_what_counts_as_come_lies_there_and_as_proven_is_so(plan: list[tuple[str, int, Runs, int]]) -> None:
    ram: PageWords = np.full((PAGES, 512), 99, dtype=np.uint64)
    image = IncomingImage(ram, ATTEMPT, STREAMS)
    image.open_round(0, DirtyBitmap.full(PAGES))
    play = Play(image, ram)
    for what, stream, runs, part in plan:
        if stream in play.over:
            continue
        try:
            step(play, what, stream, runs, part)
        except TransferError:
            play.over.add(stream)
        play.holds()


@pytest.mark.parametrize("honest", [True, False])
def test_a_page_that_two_streams_bring_at_once_is_refused_on_the_second(honest: bool) -> None:
    ram: PageWords = np.zeros((PAGES, 512), dtype=np.uint64)
    image = IncomingImage(ram, ATTEMPT, STREAMS)
    image.open_round(0, DirtyBitmap.full(PAGES))
    play = Play(image, ram)
    both = np.array([(3, 2)], dtype=np.uint32)
    play.begin(0, both, honest=True)
    play.begin(1, both, honest=honest)
    play.end(0)
    assert image.stale_pages == PAGES - 2
    with pytest.raises(PageOutsideRound, match="Page 3 "):
        play.end(1)
    assert image.stale_pages == PAGES
    assert image.unverified() == DirtyBitmap.full(PAGES)
    assert image.received_pages == 2
