"""The destination's half: frames into RAM, what is stale, what is verified.

::

    open_round ──> open ── Pages, Zeros, Digests ──> open ── last stream's Barrier ──> closed ──> open_round
                                                                                          '──> verify

What the promise rests on: a page is stale from the moment that a round announces it until its contents are in RAM;
a round closes only when nothing is stale, or when its source says that it cut it, and then what is stale stays so; the
image is whole only when nothing is stale; what is proven of its pages is vm_migration.transfer.verified_pages. Nothing
is kept per page but three bits and, of pages that came again after round 0, the round of what lies there, which a delta
must name.

Records of the devices' state are counted and kept in their order until the caller takes them, which he does before he
passes any answer on.
"""

from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

import numpy as np

from vm_migration.transfer.codecs import Decompressor
from vm_migration.transfer.digests import PageWords, digests_of_pages, zero_rows
from vm_migration.transfer.errors import (
    BadContents,
    OutOfSequence,
    PageOutsideRound,
    RoundIncomplete,
    TransferError,
    WrongAttempt,
    WrongBase,
    WrongOrder,
    WrongRound,
    WrongStream,
)
from vm_migration.transfer.frames import (
    DEVICE_STREAM,
    Ack,
    AckKind,
    Barrier,
    CompressedPages,
    Device,
    DigestArray,
    Digests,
    Frame,
    Heartbeat,
    Pages,
    PagesToCome,
    Place,
    RoundArray,
    Zeros,
)
from vm_migration.transfer.page_runs import LONG_RUN, Runs, page_count, pages_of
from vm_migration.transfer.verified_pages import VerifiedPages, VerifyResult
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.dirty_bitmap import Pages as PageIndexes
from vmm.memory.quantities import PAGE_SIZE
from vmm.vfio.device_records import DeviceRecord, DeviceSum, DeviceTotal

_RECORD_OVERHEAD: Final = 1024
_ZEROED_AT_ONCE: Final = 1024
"""Pages that are read at once to see whether they are zero: what is copied for it stays in the processor's cache."""


class IncomingImage:
    """A RAM that is being filled by one attempt."""

    def __init__(
        self,
        words: PageWords,
        attempt: UUID,
        streams: int,
        *,
        full: bool = False,
        memory_within: Callable[[int, int], Iterable[tuple[int, int]]] = lambda first, count: ((first, count),),
    ) -> None:
        """Begin with a RAM, one page a row, of which nothing is known.

        Args:
            words: The RAM. Its memory should have been populated.
            attempt: The attempt whose frames are taken.
            streams: How many streams each round has.
            full: Count only digests that came in the last round (`--verify full`).
            memory_within: Tells which runs of a run of pages hold memory; the others are zero already, and to read
                them would allocate them. By default all of it does: a real destination has populated its RAM.
        """
        self.pages: Final = len(words)
        self.round: int | None = None
        self.received_pages = 0
        self._words = words
        self._data = words.data.cast("B")
        self._attempt = attempt
        self._full = full
        self._memory_within = memory_within
        self._next_sequence = [0] * streams
        self._open_streams: set[int] = set()
        self._cut = False
        self._stale = DirtyBitmap(self.pages)
        self._proof = VerifiedPages(words)
        self._came = np.zeros(self.pages, dtype=np.uint32)
        """The round in which a page's contents came; 0, which takes no memory, for what only round 0 brought."""
        self.device_bytes_waiting = 0
        """A bound on the memory that records take which nobody has taken: their data, and a little for each."""
        self._records: list[DeviceRecord] = []
        self._device_sum = DeviceSum()
        self._decompressor = Decompressor()

    @property
    def device_total(self) -> DeviceTotal:
        """What the records of the devices' state have come to."""
        return self._device_sum.total

    def take_device_records(self) -> tuple[DeviceRecord, ...]:
        """Return the records that came since they were taken last."""
        taken, self._records = tuple(self._records), []
        self.device_bytes_waiting = 0
        return taken

    @property
    def stale_pages(self) -> int:
        """How many announced pages have not come."""
        return self._stale.count()

    @property
    def closed(self) -> bool:
        """Whether a round was opened and its barrier has closed over all streams."""
        return self.round is not None and not self._open_streams

    @property
    def whole(self) -> bool:
        """Whether every announced page is in RAM."""
        return self.closed and not self._stale

    def open_round(self, number: int, announced: DirtyBitmap) -> None:
        """Begin a round: its pages are stale until they come.

        Raises:
            WrongOrder: The barrier of the last round is open, or the number is not the next.
            ValueError: The bitmap is not of this RAM.
        """
        if self._open_streams:
            raise WrongOrder("Opening a round", f"round {self.round} open", "its barrier closed")
        required = 0 if self.round is None else self.round + 1
        if number != required:
            raise WrongOrder("Opening a round", f"asked for round {number}", f"round {required}")
        self._stale.merge(announced)
        self._cut = False
        self.round = number
        self._open_streams = set(range(len(self._next_sequence)))
        if self._full:
            self._proof.forget()

    def apply(self, frame: Frame, stream: int, data: memoryview | None = None) -> Ack | None:
        """Take one frame that came on a stream, and return what to answer.

        Args:
            frame: What came.
            stream: The stream's ordinal.
            data: Its pages, where they are compressed in it and somebody has decompressed them already.

        Raises:
            TransferError: The frame does not fit, and nothing was changed; or it is digest-summed and its data are not
                its digests', and its pages stay stale. The attempt cannot go on.
        """
        self._check_place(frame.place, stream)
        answer: AckKind | None = None
        match frame.body:
            case Pages() as body:
                self._apply_pages(body)
            case CompressedPages(runs, _, _, digests, bases) as body:
                made = Pages(runs, self._decompressor.page_data_of(body) if data is None else data, digests)
                if bases is None:
                    self._apply_pages(made)
                else:
                    self._apply_deltas(made, bases)
            case Zeros() as body:
                self._apply_zeros(body)
            case Digests() as body:
                self._apply_digests(body)
            case Device(record):
                self._take(record, stream)
            case Barrier(cut):
                self._close_stream(stream, cut=cut)
                answer = AckKind.BARRIER
            case Heartbeat():
                answer = AckKind.HEARTBEAT
        self._next_sequence[stream] += 1
        return None if answer is None else Ack(frame.place, answer, self.stale_pages)

    def expect(self, coming: PagesToCome, stream: int) -> list[memoryview]:
        """Return where the data of a frame belong, in their order; `arrived` is to follow once they are there.

        Nothing else may come on the stream between the two. Until `arrived` the pages stay stale, whatever they hold.

        Raises:
            TransferError: The frame does not fit; the attempt cannot go on.
        """
        self._check_place(coming.place, stream)
        self._require_announced(coming.runs)
        rows: list[tuple[int, int]] = coming.runs.tolist()
        return [self._data[first * PAGE_SIZE : (first + count) * PAGE_SIZE] for first, count in rows]

    def arrived(self, coming: PagesToCome, stream: int) -> None:
        """Take an expected frame whose data are in RAM.

        Raises:
            TransferError: A page does not have its digest, or came on another stream meanwhile; the pages are stale,
                for what came there was written over, and the attempt cannot go on.
        """
        try:
            self._require_announced(coming.runs)
            self._compare_at_once(coming.runs, coming.digests)
        except TransferError:
            self._written_over(coming.runs)
            raise
        self._next_sequence[stream] += 1

    def progress(self, stream: int) -> Ack:
        """Return what a stream is told that asks for nothing: how many of its frames are applied."""
        place = Place(self._attempt, self.round or 0, stream, self._next_sequence[stream])
        return Ack(place, AckKind.PROGRESS, self.stale_pages)

    def verify(self) -> VerifyResult:
        """Return the comparison of every page.

        Raises:
            WrongOrder: Not every announced page is in RAM.
        """
        if not self.whole:
            raise WrongOrder("Verifying", f"{self.stale_pages} pages stale", "a closed round with no page stale")
        return self._proof.result()

    def unverified(self) -> DirtyBitmap:
        """Return every page that is not proven equal: it differs, or no digest was stated for it as it is now."""
        return self._proof.unproven()

    def _check_place(self, place: Place, stream: int) -> None:
        if place.attempt != self._attempt:
            raise WrongAttempt(f"Frame of attempt {place.attempt}, not {self._attempt}")
        if place.stream != stream:
            raise WrongStream(f"Frame of stream {place.stream} came on stream {stream}")
        if place.round != self.round:
            raise WrongRound(f"Frame of round {place.round} on stream {stream}; the open round is {self.round}")
        if stream not in self._open_streams:
            raise WrongStream(f"Frame after the barrier of round {place.round} on stream {stream}")
        if place.sequence != self._next_sequence[stream]:
            raise OutOfSequence(f"Frame {place.sequence} on stream {stream}, not {self._next_sequence[stream]}")

    def _announced(self, runs: Runs) -> PageIndexes:
        """Return the pages of runs, all of which the open round still expects."""
        pages = self._in_block(runs)
        expected = self._stale.contains_pages(pages)
        if not expected.all():
            page = int(pages[~expected][0])
            raise PageOutsideRound(f"Page {page} is not among those that round {self.round} still expects")
        return pages

    def _in_block(self, runs: Runs) -> PageIndexes:
        pages = pages_of(runs)
        if int(pages[-1]) >= self.pages:
            raise PageOutsideRound(f"Page {int(pages[-1])} is past the block's {self.pages} pages")
        return pages

    def _require_announced(self, runs: Runs) -> None:
        """Check that the open round still expects the pages of runs: at once where the runs are few."""
        if len(runs) * LONG_RUN > page_count(runs):
            self._announced(runs)
            return
        rows: list[tuple[int, int]] = runs.tolist()
        if not all(first + count <= self.pages and self._stale.contains_run(first, count) for first, count in rows):
            self._announced(runs)  # raises, and names the page

    def _apply_pages(self, body: Pages) -> None:
        self._require_announced(body.runs)
        pages = pages_of(body.runs)
        rows = np.frombuffer(body.data, dtype=np.uint64).reshape(-1, PAGE_SIZE // 8)
        if len(body.runs) == 1:  # as an array: the interpreter is free while it is copied
            self._words[int(pages[0]) : int(pages[-1]) + 1] = rows
        else:
            self._words[pages] = rows
        if body.digest_summed and body.digests is not None:
            self._compare_at_once(body.runs, body.digests)
            return
        self._arrived(pages)
        if body.digests is not None:
            self._proof.compare(pages, body.digests)

    def _compare_at_once(self, runs: Runs, stated: DigestArray) -> None:
        """Take pages that have just been written and must have these digests, or the message was not what was sent."""
        pages = pages_of(runs)
        equal = digests_of_pages(self._words, pages) == stated
        if not equal.all():
            page = int(pages[~equal][0])
            raise BadContents(f"Page {page} came with the digest of other contents")
        if len(runs) * LONG_RUN > len(pages):
            self._arrived(pages)
            self._proof.prove(pages)
            return
        for first, count in runs.tolist():
            self._stale.clear_run(first, count)
            self._proof.written_run(first, count, proven=True)
            if self.round:
                self._came[first : first + count] = self.round
            self.received_pages += count

    def _apply_deltas(self, body: Pages, bases: RoundArray) -> None:
        """Change pages that came before, in the rounds that the source names."""
        pages = self._announced(body.runs)
        others = self._came[pages] != bases
        if others.any():
            page, base = int(pages[others][0]), int(bases[others][0])
            raise WrongBase(f"Page {page} came in round {self._came[page]}; its delta is against round {base}")
        changes = np.frombuffer(body.data, dtype=np.uint64).reshape(-1, PAGE_SIZE // 8)
        if len(body.runs) == 1:
            self._words[int(pages[0]) : int(pages[-1]) + 1] ^= changes
        else:
            self._words[pages] ^= changes
        self._arrived(pages)
        if body.digests is not None:
            self._proof.compare(pages, body.digests)

    def _apply_zeros(self, body: Zeros) -> None:
        if len(body.runs) * LONG_RUN > page_count(body.runs):
            self._apply_scattered_zeros(body)
            return
        self._require_announced(body.runs)
        for first, count in body.runs.tolist():
            self._zero(first, count)
            self._stale.clear_run(first, count)
            self._proof.written_run(first, count, proven=body.digested)  # each page was just read as zero, or made so
            came = self._came[first : first + count]
            if came.any():
                came[:] = 0
            self.received_pages += count

    def _apply_scattered_zeros(self, body: Zeros) -> None:
        pages = self._announced(body.runs)
        for first, count in body.runs.tolist():
            self._zero(first, count)
        self._arrived(pages)
        self._came[pages[self._came[pages] != 0]] = 0
        if body.digested:
            self._proof.prove(pages)

    def _zero(self, first: int, count: int) -> None:
        for start, length in self._memory_within(first, count):
            for begin in range(start, start + length, _ZEROED_AT_ONCE):
                rows = self._words[begin : min(begin + _ZEROED_AT_ONCE, start + length)]
                rows[~zero_rows(rows)] = 0

    def _apply_digests(self, body: Digests) -> None:
        pages = self._in_block(body.runs)
        stale = self._stale.contains_pages(pages)
        if stale.any():
            raise PageOutsideRound(f"Digest of page {int(pages[stale][0])}, which has not come yet")
        self._proof.compare(pages, body.digests)

    def _take(self, record: DeviceRecord, stream: int) -> None:
        if stream != DEVICE_STREAM:
            raise WrongStream(f"Record of a device's state came on stream {stream}, not {DEVICE_STREAM}")
        self._records.append(record)
        self.device_bytes_waiting += len(record.data) + _RECORD_OVERHEAD
        self._device_sum.add(record)

    def _arrived(self, pages: PageIndexes) -> None:
        self._stale.clear_pages(pages)
        self._proof.written(pages)
        if self.round:
            self._came[pages] = self.round
        self.received_pages += len(pages)

    def _written_over(self, runs: Runs) -> None:
        """Take back that pages came, and what is proven of them."""
        pages = pages_of(runs)
        self._stale.set_pages(pages)
        self._proof.written(pages)

    def _close_stream(self, stream: int, *, cut: bool) -> None:
        if self._open_streams == {stream} and self._stale and not (self._cut or cut):
            raise RoundIncomplete(f"Round {self.round} ended while {self.stale_pages} announced pages are missing")
        self._open_streams.remove(stream)
        self._cut = self._cut or cut
