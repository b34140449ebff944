"""One round from RAM to RAM: what is sent how, and what the destination refuses."""

from itertools import islice
from uuid import UUID

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.digests import ZERO_DIGEST, PageWords, StatedDigests, digests_of_pages, zero_rows
from vm_migration.transfer.errors import (
    OutOfSequence,
    PageOutsideRound,
    RoundIncomplete,
    TransferError,
    WrongAttempt,
    WrongOrder,
    WrongRound,
    WrongStream,
)
from vm_migration.transfer.frames import (
    MAX_ZERO_PAGES,
    Ack,
    AckKind,
    Barrier,
    Body,
    Digests,
    Frame,
    Heartbeat,
    Pages,
    Place,
    Zeros,
)
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.outgoing import OutgoingRound, OutgoingStream, pages_per_frame
from vm_migration.transfer.page_runs import page_count, runs_of
from vm_migration.transfer.unsent import UnsentSet
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.ram_block import RamBlock

ATTEMPT = UUID(int=1)
OTHER = UUID(int=2)
PAGES = 40
PAYLOAD = 4 * (4096 + 16)


def memory(pages: int = PAGES, seed: int = 0) -> PageWords:
    return np.random.default_rng(seed).integers(1, 2**63, (pages, 512), dtype=np.uint64)


def bitmap_of(*pages: int) -> DirtyBitmap:
    return DirtyBitmap.from_pages(PAGES, np.array(pages, dtype=np.int64))


def stream(ordinal: int = 0) -> OutgoingStream:
    return OutgoingStream(ATTEMPT, ordinal, payload_bytes=PAYLOAD)


def destination(words: PageWords | None = None, *, streams: int = 1, full: bool = False) -> IncomingImage:
    return IncomingImage(
        np.zeros((PAGES, 512), dtype=np.uint64) if words is None else words, ATTEMPT, streams, full=full
    )


def send(outgoing: OutgoingRound, image: IncomingImage, ordinal: int = 0) -> Ack:
    acks = [ack for frame in outgoing if (ack := image.apply(frame, ordinal)) is not None]
    assert len(acks) == 1
    return acks[0]


def bodies(outgoing: OutgoingRound) -> list[Body]:
    return [frame.body for frame in outgoing]


@given(st.sets(st.integers(0, PAGES - 1)), st.sets(st.integers(0, PAGES - 1)), st.integers(1, 3), st.booleans())
@settings(max_examples=60)
def test_a_round_makes_its_pages_equal_and_touches_no_other(
    dirty: set[int], zero: set[int], streams: int, digested: bool
) -> None:
    source, target = memory(), memory(seed=1)
    source[sorted(zero)] = 0
    before = target.copy()
    image = destination(target, streams=streams)
    opened = bitmap_of(*dirty)
    image.open_round(0, opened)
    sent = zeroes = 0
    stale = len(dirty)
    for ordinal in range(streams):
        share = bitmap_of(*(page for page in dirty if page % streams == ordinal))
        outgoing = stream(ordinal).round(0, source, share, digested=digested)
        assert image.closed is False
        stale = send(outgoing, image, ordinal).stale_pages
        sent += outgoing.sent_pages
        zeroes += outgoing.zero_pages
        assert outgoing.finished
    assert stale == 0
    assert image.whole
    assert image.received_pages == sent + zeroes == len(dirty)
    assert zeroes == len(dirty & zero)
    assert (target[sorted(dirty)] == source[sorted(dirty)]).all()
    rest = sorted(set(range(PAGES)) - dirty)
    assert (target[rest] == before[rest]).all()
    assert image.verify().pages_verified == (len(dirty) if digested else 0)


def test_long_runs_travel_as_one_and_scattered_pages_gathered() -> None:
    run, scattered = bodies(stream().round(0, memory(), bitmap_of(*range(3, 7), 9, 11, 13, 15)))[:2]
    assert isinstance(run, Pages)
    assert isinstance(scattered, Pages)
    assert run.runs.tolist() == [[3, 4]]
    assert scattered.runs.tolist() == [[9, 1], [11, 1], [13, 1], [15, 1]]


def test_frames_become_smaller_from_the_next_on() -> None:
    sending = stream()
    frames = sending.round(0, memory(), bitmap_of(*range(20))).pages()
    found = [next(frames)]
    sending.pages_per_frame = 1
    counts = [page_count(each.body.runs) for each in (*found, *frames) if isinstance(each.body, Pages)]
    assert counts == [4] + [1] * 16


def test_room_that_zero_pages_leave_is_filled() -> None:
    source = memory()
    source[0:10:2] = 0
    first, *_ = found = bodies(stream().round(0, source, bitmap_of(*range(10))))
    assert isinstance(first, Pages)
    assert page_count(first.runs) == 4
    assert [type(body) for body in found] == [Pages, Pages, Zeros, Barrier]


def test_zero_pages_go_in_batches_that_stay_short() -> None:
    pages = MAX_ZERO_PAGES + 3000
    source = np.zeros((pages, 512), dtype=np.uint64)
    for holes in (None, DirtyBitmap.full(pages)):
        found = bodies(OutgoingStream(ATTEMPT, 0).round(0, source, DirtyBitmap.full(pages), holes=holes))
        counts = [page_count(body.runs) for body in found if isinstance(body, Zeros)]
        assert sum(counts) == pages
        assert max(counts) <= MAX_ZERO_PAGES
        assert len(counts) == 2


def test_a_page_that_is_zero_but_for_one_word_is_data() -> None:
    rows = np.zeros((512, 512), dtype=np.uint64)
    rows[np.arange(512), np.arange(512)] = 1
    assert not zero_rows(rows).any()
    assert zero_rows(np.zeros((3, 512), dtype=np.uint64)).all()


def test_a_frame_keeps_what_was_copied_while_the_guest_writes_on() -> None:
    source = memory()
    frames = iter(stream().round(0, source, bitmap_of(1, 2), digested=True))
    frame = next(frames)
    source[:] = 0
    body = frame.body
    assert isinstance(body, Pages)
    assert body.digests is not None
    assert [xxhash.xxh3_64_intdigest(body.data[at : at + 4096]) for at in (0, 4096)] == body.digests.tolist()


def test_holes_are_announced_without_being_read() -> None:
    block = RamBlock.create("holes", PAGES * 4096)
    block.words[5, 0] = 1
    touched = DirtyBitmap(PAGES)
    for first, count in block.extents():
        touched.set_run(first, count)
    holes = DirtyBitmap.full(PAGES) - touched
    announced = bitmap_of(30, 31)
    outgoing = stream().round(
        0, block.words, DirtyBitmap.full(PAGES) - announced, holes=holes, digested=True, announced=announced
    )
    image = destination()
    image.open_round(0, DirtyBitmap.full(PAGES) - announced)
    send(outgoing, image)
    assert outgoing.zero_pages + outgoing.sent_pages == PAGES - 2
    assert image.verify().whole
    assert sum(count for _, count in block.extents()) == touched.count()


def test_zeros_overwrite_what_lies_at_the_destination() -> None:
    target = memory(seed=1)
    image = destination(target)
    image.open_round(0, bitmap_of(4, 5))
    send(stream().round(0, np.zeros((PAGES, 512), dtype=np.uint64), bitmap_of(4, 5)), image)
    assert not target[4:6].any()
    assert target[3].all()


def test_payloads_hold_their_pages_however_scattered() -> None:
    assert pages_per_frame(1 << 20) == 255
    assert pages_per_frame(4096 + 16) == 1
    for payload in (4096, (1 << 20) + 1):
        with pytest.raises(ValueError, match="payload"):
            pages_per_frame(payload)


# What the destination refuses, and that a refusal changes nothing.


def frame(body: Body, *, attempt: UUID = ATTEMPT, number: int = 0, ordinal: int = 0, sequence: int = 0) -> Frame:
    return Frame(Place(attempt, number, ordinal, sequence), body)


def one_page(page: int) -> Pages:
    return Pages(runs_of(np.array([page], dtype=np.int64)), memoryview(b"x" * 4096))


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (frame(Heartbeat(), attempt=OTHER), WrongAttempt),
        (frame(Heartbeat(), number=1), WrongRound),
        (frame(Heartbeat(), ordinal=1), WrongStream),
        (frame(Heartbeat(), sequence=1), OutOfSequence),
        (frame(one_page(9)), PageOutsideRound),
        (frame(one_page(PAGES)), PageOutsideRound),
        (frame(Zeros(runs_of(np.array([3, 9])), digested=False)), PageOutsideRound),
        (frame(Digests(runs_of(np.array([3])), np.zeros(1, dtype=np.uint64))), PageOutsideRound),
        (frame(Barrier()), RoundIncomplete),
    ],
)
def test_what_does_not_fit_the_open_round_is_refused_and_changes_nothing(
    refused: Frame, error: type[TransferError]
) -> None:
    target = memory(seed=1)
    before = target.copy()
    image = destination(target)
    image.open_round(0, bitmap_of(3, 4))
    with pytest.raises(error):
        image.apply(refused, 0)
    assert (target == before).all()
    assert image.stale_pages == 2
    assert image.apply(frame(Heartbeat()), 0) == Ack(Place(ATTEMPT, 0, 0, 0), AckKind.HEARTBEAT, 2)


def test_a_page_that_came_is_not_expected_again() -> None:
    image = destination()
    image.open_round(0, bitmap_of(3, 4))
    image.apply(frame(one_page(3)), 0)
    with pytest.raises(PageOutsideRound, match="Page 3"):
        image.apply(frame(one_page(3), sequence=1), 0)


def test_nothing_follows_a_barrier_on_its_stream() -> None:
    image = destination(streams=2)
    image.open_round(0, bitmap_of(3))
    assert image.apply(frame(Barrier()), 0) == Ack(Place(ATTEMPT, 0, 0, 0), AckKind.BARRIER, 1)
    with pytest.raises(WrongStream):
        image.apply(frame(one_page(3), sequence=1), 0)
    image.apply(frame(one_page(3), ordinal=1), 1)
    assert not image.closed
    image.apply(frame(Barrier(), ordinal=1, sequence=1), 1)
    assert image.whole


def test_rounds_open_one_after_the_other() -> None:
    image = destination()
    with pytest.raises(WrongOrder, match="round 1"):
        image.open_round(1, bitmap_of())
    with pytest.raises(WrongRound):
        image.apply(frame(Heartbeat()), 0)
    with pytest.raises(WrongOrder):
        image.verify()
    image.open_round(0, bitmap_of())
    with pytest.raises(WrongOrder, match="round 0 open"):
        image.open_round(1, bitmap_of())
    image.apply(frame(Barrier()), 0)
    with pytest.raises(WrongOrder):
        image.open_round(0, bitmap_of())
    with pytest.raises(ValueError, match="pages"):
        image.open_round(1, DirtyBitmap(PAGES + 1))
    assert image.closed
    image.open_round(1, bitmap_of(7))
    assert not image.whole


# Verification.


def filled(
    target: PageWords, source: PageWords, *, digested: bool, full: bool = False
) -> tuple[IncomingImage, OutgoingStream]:
    image, outgoing = destination(target, full=full), stream()
    image.open_round(0, DirtyBitmap.full(PAGES))
    send(outgoing.round(0, source, DirtyBitmap.full(PAGES), digested=digested), image)
    return image, outgoing


def last_round(
    image: IncomingImage, outgoing: OutgoingStream, source: PageWords, dirty: DirtyBitmap, announced: DirtyBitmap
) -> None:
    image.open_round(1, dirty)
    send(outgoing.round(1, source, dirty, digested=True, announced=announced), image)


def test_pages_are_verified_as_they_come() -> None:
    image, _ = filled(np.zeros((PAGES, 512), dtype=np.uint64), memory(), digested=True)
    assert image.verify().whole
    assert image.verify().pages_verified == PAGES


def test_without_digests_nothing_is_verified() -> None:
    image, _ = filled(np.zeros((PAGES, 512), dtype=np.uint64), memory(), digested=False)
    result = image.verify()
    assert (result.pages_verified, result.pages_mismatched, result.pages_unstated) == (0, 0, PAGES)
    assert not result.whole


def test_digests_at_the_pause_are_compared_with_what_lies_in_ram() -> None:
    source, target = memory(), np.zeros((PAGES, 512), dtype=np.uint64)
    image, outgoing = filled(target, source, digested=False)
    source[6, 100] += np.uint64(1)
    target[8, 200] += np.uint64(1)
    last_round(image, outgoing, source, bitmap_of(2), DirtyBitmap.full(PAGES) - bitmap_of(2))
    result = image.verify()
    assert result.mismatched == (6, 8)
    assert (result.pages_verified, result.pages_mismatched, result.pages_unstated) == (PAGES - 2, 2, 0)


def test_a_page_that_differed_is_whole_again_once_it_is_sent_again() -> None:
    source, target = memory(), np.zeros((PAGES, 512), dtype=np.uint64)
    image, outgoing = filled(target, source, digested=True)
    source[6] = 5
    image.open_round(1, bitmap_of())
    send(outgoing.round(1, source, bitmap_of(), announced=bitmap_of(6)), image)
    assert image.verify().mismatched == (6,)
    image.open_round(2, bitmap_of(6))
    send(outgoing.round(2, source, bitmap_of(6), digested=True), image)
    assert image.verify().whole


def test_full_counts_only_what_the_last_round_states() -> None:
    source, target = memory(), np.zeros((PAGES, 512), dtype=np.uint64)
    image, outgoing = filled(target, source, digested=True, full=True)
    last_round(image, outgoing, source, bitmap_of(2), bitmap_of(3, 4))
    assert image.verify().pages_verified == 3
    assert image.verify().pages_unstated == PAGES - 3


def test_zero_pages_are_verified_by_their_digest() -> None:
    assert xxhash.xxh3_64_intdigest(bytes(4096)) == ZERO_DIGEST
    assert (digests_of_pages(np.zeros((9, 512), dtype=np.uint64), np.array([1, 2, 7])) == ZERO_DIGEST).all()


def test_a_stated_digest_lasts_until_the_witness_sees_a_write() -> None:
    stated = StatedDigests(PAGES)
    assert stated.missing() == DirtyBitmap.full(PAGES)
    stated.state(DirtyBitmap.full(PAGES))
    stated.withdraw(bitmap_of(4, 9))
    assert stated.missing() == bitmap_of(4, 9)
    stated.withdraw_all()
    assert stated.missing() == DirtyBitmap.full(PAGES)


@given(st.integers(0, 12), st.integers(1, 3), st.sets(st.integers(0, PAGES - 1)))
@settings(max_examples=40)
def test_a_cut_round_leaves_stale_what_it_did_not_send_and_a_later_one_brings_it(
    frames: int, streams: int, rewritten: set[int]
) -> None:
    source, image = memory(), destination(streams=streams)
    outgoing = [stream(ordinal) for ordinal in range(streams)]
    unsent = UnsentSet(PAGES)
    unsent.harvest(DirtyBitmap.full(PAGES))
    opened = unsent.open_round(streams)
    image.open_round(0, opened.bitmap)
    for each, share in zip(outgoing, opened.shares, strict=True):
        part = each.round(0, source, share)
        for frame in islice(part.pages(), frames):
            image.apply(frame, each.stream)
        image.apply(part.barrier(), each.stream)
        unsent.acknowledge(0, each.stream, part.unsent)
    assert image.stale_pages == unsent.dirty_pages
    assert image.closed
    assert image.whole is (image.stale_pages == 0)
    source[sorted(rewritten)] = 7
    unsent.harvest(bitmap_of(*sorted(rewritten)))
    opened = unsent.open_round(streams)
    image.open_round(1, opened.bitmap)
    for each, share in zip(outgoing, opened.shares, strict=True):
        send(each.round(1, source, share, digested=True), image, each.stream)
    assert image.whole


def test_a_round_that_is_not_cut_may_not_leave_pages_out() -> None:
    image = destination()
    image.open_round(0, bitmap_of(1, 2))
    image.apply(frame(Barrier(cut=True)), 0)
    image.open_round(1, bitmap_of(1, 2))
    with pytest.raises(RoundIncomplete):
        image.apply(Frame(Place(ATTEMPT, 1, 0, 1), Barrier()), 0)


def test_progress_counts_the_frames_that_are_applied() -> None:
    image = destination()
    assert image.progress(0) == Ack(Place(ATTEMPT, 0, 0, 0), AckKind.PROGRESS, 0)
    image.open_round(0, bitmap_of(1, 2))
    image.apply(frame(Heartbeat()), 0)
    assert image.progress(0) == Ack(Place(ATTEMPT, 0, 0, 1), AckKind.PROGRESS, 2)
