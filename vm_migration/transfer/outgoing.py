"""The source's half of a round: from a dirty bitmap and RAM that is being written to frames.

::

    share of the round's bitmap --+-- never touched ------------------------------------> Zeros
                                  '-- copied, a frame's worth at a time --+-- all zero --> Zeros
                                                                          '-- the rest --> Pages
    pages whose digest must be told ----- hashed in RAM --------------------------------> Digests
    records of the devices' state, which the caller reads ------------------------------> Device
                                                                                          Barrier

The guest writes while this runs. A frame's pages are therefore copied once into memory of the frame's own; zero
detection, digests and the frame's checksum all look at that copy, so that they speak of the same bytes. What the
guest writes during or after the copy belongs to a later harvest, and is sent again.

The engine yields between frames: its caller paces, cancels by not asking for more, and encodes.
"""

from collections.abc import Callable, Iterator
from typing import Final
from uuid import UUID

import numpy as np

from vm_migration.transfer.codecs import Compressor
from vm_migration.transfer.digests import ZERO_DIGEST, PageWords, digests_of_pages, digests_of_rows, zero_rows
from vm_migration.transfer.frames import (
    MAX_PAYLOAD,
    MAX_ZERO_PAGES,
    Barrier,
    Body,
    Codec,
    CompressedPages,
    Device,
    DigestArray,
    Digests,
    Frame,
    Heartbeat,
    Pages,
    Place,
    Zeros,
)
from vm_migration.transfer.hot_pages import WaitingPages
from vm_migration.transfer.page_runs import LONG_RUN, Runs, page_count, pages_of, pieces, run_pieces, runs_of
from vm_migration.transfer.sent_pages import SentPages
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.dirty_bitmap import Pages as PageIndexes
from vmm.memory.quantities import PAGE_SIZE
from vmm.vfio.device_records import DeviceRecord

_TABLE_BYTES: Final = 16
"""At most a run and a digest go with each page."""
_MOST_PAGES: Final = MAX_PAYLOAD // (PAGE_SIZE + _TABLE_BYTES)
_DELTA_CODEC: Final = Codec.LZ4
"""Three quarters of a delta are zeros, and mostly nearly all: the quicker codec makes little of them too."""
_DELTA_COMPRESSOR: Final = Compressor()
_PAGES_PER_DIGESTS: Final = 8192
"""About 4 ms of hashing between two chances to pace or cancel."""


def pages_per_frame(payload_bytes: int) -> int:
    """Return how many pages always fit into a payload, however scattered.

    Raises:
        ValueError: Not one page fits, or the payload is over MAX_PAYLOAD.
    """
    if not PAGE_SIZE + _TABLE_BYTES <= payload_bytes <= MAX_PAYLOAD:
        raise ValueError(f"Frame payload of {payload_bytes} bytes is not within 1 page and {MAX_PAYLOAD} bytes")
    return payload_bytes // (PAGE_SIZE + _TABLE_BYTES)


class OutgoingRound:
    """One stream's share of one round, as an iterator of frames; the counters grow with it.

    A page counts as sent or as zero when what its frame says is handed out.
    """

    def __init__(  # noqa: PLR0917 - made by OutgoingStream only
        self,
        stream: "OutgoingStream",
        number: int,
        words: PageWords,
        dirty: DirtyBitmap,
        holes: DirtyBitmap,
        announced: DirtyBitmap,
        *,
        digested: bool,
        digest_summed: bool,
        remembered: SentPages | None,
        waiting: WaitingPages | None,
    ) -> None:
        self.sent_pages = 0
        self.delta_pages = 0
        """Of the sent pages, those of which what had changed was sent."""
        self.zero_pages = 0
        self.finished = False
        self._stream = stream
        self._number = number
        self._words = words
        self._dirty = dirty
        self._holes = holes
        self._announced = announced
        self._digested = digested
        self.digest_summed = digest_summed
        """Pages that go as they are, with digests, are left out of the checksum; counts from the next frame on."""
        self._remembered = remembered
        self._waiting = waiting
        self._left = dirty.copy()

    @property
    def unsent(self) -> DirtyBitmap:
        """The pages of this share that no frame has spoken of yet."""
        return self._left

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, of which the last is the barrier. Once only."""
        yield from self.pages()
        yield from self.waited()
        yield self.barrier()

    def pages(self) -> Iterator[Frame]:
        """Yield the frames that speak of pages: all but the barrier, before which others may go. Once only.

        Of pages that wait, none.
        """
        return map(self.frame, self.bodies())

    def waited(self) -> Iterator[Frame]:
        """Yield the frames of the pages that waited: but for those that are dirty again. Once, after all of `pages`."""
        return map(self.frame, self.waited_bodies())

    def bodies(self) -> Iterator[Body]:
        """Yield what the frames of `pages` say, each to be sent as a `frame`, in this order and before any other."""
        yield from self._counted(self._bodies())

    def waited_bodies(self) -> Iterator[Body]:
        """Yield what the frames of `waited` say, as `bodies` does."""
        if self._waiting is not None and self._waiting.any and self._left:
            yield from self._counted(self._contents(self._left - self._holes, self._waiting.after_all))

    def frame(self, body: Body) -> Frame:
        """Return the frame that says something, or the same compressed; to be sent before any that is made later."""
        return Frame(self._stream.place(self._number), body)

    def _counted(self, bodies: Iterator[Body]) -> Iterator[Body]:
        for body in bodies:
            match body:
                case Pages():
                    self.sent_pages += page_count(body.runs)
                    self._handed_out(body.runs)
                case CompressedPages():
                    self.sent_pages += page_count(body.runs)
                    self.delta_pages += page_count(body.runs)
                    self._handed_out(body.runs)
                case Zeros():
                    self.zero_pages += page_count(body.runs)
                    self._handed_out(body.runs)
                    if self._remembered is not None:
                        self._remembered.forget(pages_of(body.runs))
            yield body

    def device(self, record: DeviceRecord) -> Frame:
        """Return the frame of the next record of the devices' state; to be sent before any that is made later."""
        return self.frame(Device(record))

    def heartbeat(self) -> Frame:
        """Return a frame that asks for an answer; to be sent before any that is made later."""
        return self.frame(Heartbeat())

    def barrier(self) -> Frame:
        """Return the last frame; it says so when pages of the share were not sent, which a later round must bring."""
        self.finished = True
        return self.frame(Barrier(cut=bool(self._left)))

    def _handed_out(self, runs: Runs) -> None:
        if len(runs) * LONG_RUN > page_count(runs):
            self._left.clear_pages(pages_of(runs))
            return
        for first, count in runs.tolist():
            self._left.clear_run(first, count)

    def _bodies(self) -> Iterator[Body]:
        for runs in run_pieces(self._dirty & self._holes, MAX_ZERO_PAGES):
            yield Zeros(runs, self._digested)
        at_once = None if self._waiting is None else self._waiting.at_once
        yield from self._contents(self._dirty - self._holes, at_once)
        for pages in pieces(self._announced & self._holes, _PAGES_PER_DIGESTS):
            yield Digests(runs_of(pages), np.full(len(pages), ZERO_DIGEST))
        for pages in pieces(self._announced - self._holes, _PAGES_PER_DIGESTS):
            yield Digests(runs_of(pages), digests_of_pages(self._words, pages))

    def _contents(self, contents: DirtyBitmap, chosen: Callable[[PageIndexes], PageIndexes] | None) -> Iterator[Body]:
        """Yield the pages that must be read: full Pages frames, and what was found to be zero.

        `chosen` says of each few pages, at their turn, which are sent.
        """
        capacity = self._stream.pages_per_frame
        batch = _Batch(capacity)
        zeros: list[PageIndexes] = []
        zero_count = 0
        for few in pieces(contents, MAX_ZERO_PAGES if chosen is None else capacity):
            pages = few if chosen is None else chosen(few)
            start = 0
            while start < len(pages):
                taken = pages[start : start + batch.room]
                start += len(taken)
                found = batch.add(self._words, taken)
                if len(found):
                    zeros.append(found)
                    zero_count += len(found)
                if not batch.room:
                    yield from self._sent(batch)
                    batch = _Batch(self._stream.pages_per_frame)
                if zero_count > MAX_ZERO_PAGES - _MOST_PAGES:
                    yield Zeros(runs_of(np.concatenate(zeros)), self._digested)
                    zeros, zero_count = [], 0
        if batch.count:
            yield from self._sent(batch)
        if zeros:
            yield Zeros(runs_of(np.concatenate(zeros)), self._digested)

    def _sent(self, batch: "_Batch") -> Iterator[Body]:
        if self._remembered is None:
            yield batch.body(digested=self._digested, digest_summed=self._digested and self.digest_summed)
        else:
            yield from batch.bodies(self._remembered, self._number, digested=self._digested)


class OutgoingStream:
    """One stream of an attempt; its frames are numbered in the order in which they are made, and sent so."""

    def __init__(self, attempt: UUID, stream: int, *, payload_bytes: int = MAX_PAYLOAD) -> None:
        self.pages_per_frame = pages_per_frame(payload_bytes)
        """Of pages as they are; may be changed, from the next frame on."""
        self.stream: Final = stream
        self.sequence = 0
        self._attempt = attempt

    def place(self, number: int) -> Place:
        """Return the place of the next frame, which is taken by this call."""
        place = Place(self._attempt, number, self.stream, self.sequence)
        self.sequence += 1
        return place

    def heartbeat(self, number: int) -> Frame:
        """Return a frame that asks for an answer; to be sent before any that is made later."""
        return Frame(self.place(number), Heartbeat())

    def round(
        self,
        number: int,
        words: PageWords,
        dirty: DirtyBitmap,
        *,
        holes: DirtyBitmap | None = None,
        digested: bool = False,
        digest_summed: bool = False,
        announced: DirtyBitmap | None = None,
        remembered: SentPages | None = None,
        waiting: WaitingPages | None = None,
    ) -> OutgoingRound:
        """Return this stream's share of a round.

        Args:
            number: The round, as it was opened at the destination.
            words: RAM, one page a row.
            dirty: This stream's share of the round's bitmap.
            holes: Pages that were never touched, known from the block's extents **after** the harvest that made
                the round's bitmap (before it, a page's first write could come between). They are not read: to read
                a hole of a mapped memfd allocates it.
            digested: State the digest of each page with its contents.
            digest_summed: Leave pages that go as they are, with digests, out of the checksum; not beside deltas.
            announced: Pages not in any share of this round whose digests are told too; the guest must be paused.
            remembered: What all streams have sent since round 1, or since it was cleared: deltas are made against it.
                In round 0 there is none.
            waiting: Which of the round's pages wait; it may learn of more while they are sent. Those that are left
                make it a cut round.
        """
        none = DirtyBitmap(dirty.pages)
        return OutgoingRound(
            self,
            number,
            words,
            dirty,
            holes or none,
            announced or none,
            digested=digested,
            digest_summed=digest_summed,
            remembered=remembered,
            waiting=waiting,
        )


class _Batch:
    """Pages copied out of RAM for one frame."""

    __slots__ = ("_pages", "_rows", "count")

    def __init__(self, capacity: int) -> None:
        self._rows: PageWords = np.empty((capacity, PAGE_SIZE // 8), dtype=np.uint64)
        self._pages: list[PageIndexes] = []
        self.count = 0

    @property
    def room(self) -> int:
        return len(self._rows) - self.count

    def add(self, words: PageWords, pages: PageIndexes) -> PageIndexes:
        """Copy ascending pages in, and return those that are zero and were left out."""
        rows = self._rows[self.count : self.count + len(pages)]
        if int(pages[-1]) - int(pages[0]) == len(pages) - 1:
            rows[:] = words[int(pages[0]) : int(pages[-1]) + 1]
        else:
            np.take(words, pages, axis=0, out=rows, mode="clip")  # "raise" would copy through a buffer
        zero = zero_rows(rows)
        zeros = pages[zero]
        if len(zeros):
            pages = pages[~zero]
            rows[: len(pages)] = rows[~zero]
        if len(pages):
            self._pages.append(pages)
            self.count += len(pages)
        return zeros

    def body(self, *, digested: bool, digest_summed: bool) -> Pages:
        """Return the frame's body, which keeps this memory."""
        rows = self._rows[: self.count]
        digests: DigestArray | None = digests_of_rows(rows) if digested else None
        return Pages(runs_of(np.concatenate(self._pages)), rows.data.cast("B"), digests, digest_summed)

    def bodies(self, remembered: SentPages, number: int, *, digested: bool) -> Iterator[Body]:
        """Yield the bodies of one frame or two: deltas against what is remembered, and the rest as they are.

        What a body says is remembered just before it is handed out: a round may be cut between the two.
        """
        pages, rows = np.concatenate(self._pages), self._rows[: self.count]
        digests: DigestArray | None = digests_of_rows(rows) if digested else None
        deltas = remembered.deltas(pages, rows)
        chosen, whole = deltas.chosen, ~deltas.chosen
        if chosen.any():
            data = _DELTA_COMPRESSOR.compressed(_DELTA_CODEC, deltas.changes.data.cast("B"))
            stated = None if digests is None else digests[chosen]
            remembered.remember(pages[chosen], rows[chosen], number)
            yield CompressedPages(runs_of(pages[chosen]), _DELTA_CODEC, memoryview(data), stated, deltas.bases)
        if whole.any():
            stated = None if digests is None else digests[whole]
            rest = rows[whole] if chosen.any() else rows
            remembered.remember(pages[whole], rest, number)
            yield Pages(runs_of(pages[whole]), rest.data.cast("B"), stated)
