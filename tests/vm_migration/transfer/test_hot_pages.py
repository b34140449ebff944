"""Pages that wait: none is lost, whatever the guest writes and whenever that is noticed, and fewer are sent."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.digests import PageWords, StatedDigests
from vm_migration.transfer.frames import Frame
from vm_migration.transfer.hot_pages import BUSY, HotPages, WaitingPages, busy_areas
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.outgoing import OutgoingRound, OutgoingStream
from vm_migration.transfer.sent_pages import SentPages
from vm_migration.transfer.unsent import UnsentSet
from vmm.memory.dirty_bitmap import DirtyBitmap

ATTEMPT = UUID(int=1)
AREA = 512
PAGES = 3 * AREA - 5
FEW = 40
PAYLOAD = 4 * (4096 + 16)


def bitmap_of(found: set[int], pages: int = PAGES) -> DirtyBitmap:
    return DirtyBitmap.from_pages(pages, np.array(sorted(found), dtype=np.int64))


def pages_of(bitmap: DirtyBitmap) -> set[int]:
    return {page for page in range(bitmap.pages) if page in bitmap}


@dataclass
class Guest:
    """RAM that a schedule writes: a step for each frame, each perhaps followed by a harvest within the round."""

    schedule: Iterator[tuple[set[int], bool]]
    words: PageWords = field(default_factory=lambda: np.random.default_rng(0).integers(1, 2**63, (FEW, 512), np.uint64))
    dirty: set[int] = field(default_factory=set)
    witnessed: set[int] = field(default_factory=set)
    value: int = 0

    def writes(self, pages: set[int]) -> None:
        self.value += 1
        self.words[sorted(pages), 0] = 0 if self.value % 5 == 0 else self.value
        if self.value % 7 == 0:
            self.words[sorted(pages)] = 0
        self.dirty |= pages
        self.witnessed |= pages

    def harvest(self) -> DirtyBitmap:
        found, self.dirty = bitmap_of(self.dirty, FEW), set()
        return found

    def witness(self) -> DirtyBitmap:
        found, self.witnessed = bitmap_of(self.witnessed, FEW), set()
        return found


@dataclass
class Moving:
    """A source that notices writes within its rounds, and the destination."""

    guest: Guest
    streams: int
    remembered: SentPages | None

    def __post_init__(self) -> None:
        self.target: PageWords = np.zeros((FEW, 512), dtype=np.uint64)
        self.image = IncomingImage(self.target, ATTEMPT, self.streams)
        self.outgoing = [OutgoingStream(ATTEMPT, at, payload_bytes=PAYLOAD) for at in range(self.streams)]
        self.unsent, self.stated, self.hot = UnsentSet(FEW), StatedDigests(FEW), HotPages(FEW)
        self.unsent.harvest(DirtyBitmap.full(FEW))
        self.guest.witness()
        self.sent = 0

    def round(self, *, still: bool) -> None:
        opened = self.unsent.open_round(self.streams)
        self.image.open_round(opened.number, opened.bitmap.copy())
        waiting = None if still else WaitingPages(opened.bitmap, self.hot.hot)
        dirtied = DirtyBitmap(FEW)
        parts = [
            stream.round(
                opened.number,
                self.guest.words,
                share,
                digested=True,
                remembered=self.remembered if opened.number else None,
                waiting=waiting,
            )
            for stream, share in zip(self.outgoing, opened.shares, strict=True)
        ]
        for ordinal, part in enumerate(parts):
            for frame in self.frames(part, waiting, dirtied):
                self.image.apply(frame, ordinal)
            self.unsent.acknowledge(opened.number, ordinal, part.unsent)
            self.sent += part.sent_pages + part.zero_pages
        sent = opened.bitmap
        for part in parts:
            sent.remove(part.unsent)
            assert waiting is not None or not part.unsent
        self.stated.state(sent)
        if not still:
            last = self.guest.harvest()
            self.unsent.harvest(last)
            dirtied.merge(last)
            self.hot.closed(dirtied)
            assert self.unsent.dirty_pages == dirtied.count(), "what waited is nothing that was not dirtied"
            self.stated.withdraw(self.guest.witness())

    def frames(self, part: OutgoingRound, waiting: WaitingPages | None, dirtied: DirtyBitmap) -> Iterator[Frame]:
        for frame in part:
            if waiting is not None:
                written, noticed = next(self.guest.schedule, (set(), False))
                self.guest.writes(written)
                if noticed:
                    found = self.guest.harvest()
                    self.unsent.harvest(found)
                    dirtied.merge(found)
                    waiting.notice(found)
            yield frame


steps = st.tuples(st.sets(st.integers(0, FEW - 1), max_size=FEW), st.booleans())


@given(st.lists(steps, max_size=60), st.integers(1, 3), st.integers(1, 6), st.booleans())
@settings(max_examples=150)
def test_no_page_is_lost_whatever_waits(
    schedule: list[tuple[set[int], bool]], streams: int, rounds: int, deltas: bool
) -> None:
    moving = Moving(Guest(iter(schedule)), streams, SentPages(1 << 20) if deltas else None)
    for _ in range(rounds):
        moving.round(still=False)
    moving.round(still=True)
    assert (moving.target == moving.guest.words).all()
    assert moving.image.whole
    assert not moving.stated.missing()
    assert moving.image.verify().whole


def test_pages_that_are_written_all_the_time_are_not_sent_again_while_there_is_enough_else() -> None:
    hot = {1, 5, 9}
    often = iter([({*hot, 20 + at % 20}, True) for at in range(1000)])
    moving = Moving(Guest(often), 1, None)
    for _ in range(2):  # in which it is seen that they are
        moving.round(still=False)
    before = moving.target.copy()
    sent = moving.sent
    moving.round(still=False)
    assert moving.sent > sent
    assert (moving.target[sorted(hot)] == before[sorted(hot)]).all()
    moving.round(still=True)
    assert (moving.target == moving.guest.words).all()


@given(st.sets(st.integers(0, PAGES - 1)), st.sets(st.integers(0, PAGES - 1)), st.sets(st.integers(0, PAGES - 1)))
@settings(max_examples=60)
def test_what_waits_is_sent_or_dirty_again_and_no_more_than_half_is_left(
    announced: set[int], late: set[int], written: set[int]
) -> None:
    waiting = WaitingPages(bitmap_of(announced), bitmap_of(late))
    every = np.array(sorted(announced), dtype=np.int64)
    waiting.notice(bitmap_of(written))
    first = set(waiting.at_once(every).tolist())
    assert first <= announced - written - late
    rest = np.array(sorted(announced - first), dtype=np.int64)
    second = set(waiting.after_all(rest).tolist())
    left = announced - first - second
    assert left <= written
    assert len(left) == waiting.left_pages == min(len(announced & written), len(announced) // 2)


def test_where_nothing_is_known_nothing_waits() -> None:
    waiting = WaitingPages(DirtyBitmap.full(PAGES), DirtyBitmap(PAGES))
    waiting.notice(DirtyBitmap(PAGES))
    every = np.arange(PAGES)
    assert not waiting.any
    assert waiting.at_once(every) is every


@given(st.sets(st.integers(0, PAGES - 1)))
@settings(max_examples=60)
def test_an_area_is_busy_by_its_own_pages(dirtied: set[int]) -> None:
    found = pages_of(busy_areas(bitmap_of(dirtied)))
    for first in range(0, PAGES, AREA):
        area = set(range(first, min(first + AREA, PAGES)))
        assert found & area == (area if len(area & dirtied) >= BUSY else set())


@pytest.mark.parametrize(("rounds", "hot"), [([{1, 2}], set()), ([{1, 2}, {2, 3}], {2}), ([{1}, {1}, {2}], set())])
def test_hot_is_what_was_dirtied_in_each_of_the_last_two_rounds(rounds: list[set[int]], hot: set[int]) -> None:
    known = HotPages(PAGES)
    for dirtied in rounds:
        known.closed(bitmap_of(dirtied))
    assert pages_of(known.hot) == hot
