"""The bulk stream of a rehearsed migration: rounds over the engines that the agents use, and a simulated link.

Order of a round as in source_agent.rounds: the harvest is taken first, what was never touched is looked up after it,
the pages are read after both, and the guest writes while they travel; the devices' state follows them.
"""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from lab.rehearsal.device_state import DeviceStateReader
from lab.rehearsal.link import Link
from lab.rehearsal.side import Side
from vm_migration.transfer.convergence import RoundMeasurement
from vm_migration.transfer.frames import Frame
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.outgoing import OutgoingStream
from vm_migration.transfer.unsent import UnsentSet
from vm_migration.wire.bitmap_codec import decode_bitmap, encode_bitmap
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.ram_block import RamBlock

_CODED_PAGES: Final = 1 << 22
"""Up to this size of RAM (16 GiB) a round's bitmap really travels as bytes."""


class StreamFailed(Exception):
    """The migration cannot go on; the text is what its user reads."""


class BulkStream:
    """One stream from a running machine into another that waits."""

    def __init__(self, source: Side, target: Side, link: Link, attempt: UUID) -> None:
        self.devices: Final = DeviceStateReader(source.machine)
        self._source: Final = source
        self._target: Final = target
        self._link: Final = link
        self._unsent: Final = UnsentSet(source.block.pages)
        self._outgoing: Final = OutgoingStream(attempt, 0)
        self._image: Final = IncomingImage(target.block.words, attempt, 1, memory_within=target.block.extents)

    def begin(self) -> None:
        """Take all pages as unsent."""
        self._unsent.harvest(DirtyBitmap.full(self._source.block.pages))

    def harvest(self) -> None:
        """Take what was written since the last harvest as unsent.

        Raises:
            StreamFailed: Pages may be missing from it.
        """
        found = self._source.machine.harvest()
        if found.failure is not None:
            raise StreamFailed(found.failure)
        self._unsent.harvest(found.cpu)
        self._unsent.harvest(found.dma)

    def send_round(self, halfway: Callable[[int], object]) -> RoundMeasurement:
        """Send what is unsent while the guest runs, and harvest what it wrote meanwhile; `halfway` gets the round.

        Raises:
            StreamFailed: The harvest failed.
        """
        started, wire = self._source.world.now_ns, self._link.wire_bytes
        number, pages, sent, zeros = self._send(halfway, last=False, announced=None)
        self.harvest()
        return RoundMeasurement(
            round=number,
            dirty_pages=pages,
            sent_pages=sent,
            zero_pages=zeros,
            wire_bytes=self._link.wire_bytes - wire,
            ms=(self._source.world.now_ns - started) / 1e6,
            dirtied_pages=self._unsent.dirty_pages,
        )

    def send_last(self) -> None:
        """Send everything that is left of a machine that stands still, its devices' state, and every page's digest.

        Raises:
            StreamFailed: The last harvest failed.
        """
        self.harvest()
        sent = self._unsent.remaining()
        unstated = DirtyBitmap.full(self._source.block.pages) - sent - self._untouched_by_both()
        self._send(lambda _number: None, last=True, announced=unstated)

    def refused_pages(self) -> frozenset[int]:
        """Return the pages that are not proven equal: no digest was stated for them, or another than theirs.

        Of a page that neither side ever touched both kernels say that it is zero; nobody hashes a terabyte of that.
        """
        unproven = self._image.unverified() - self._untouched_by_both()
        return frozenset(unproven.indexes().tolist())

    def _send(
        self, halfway: Callable[[int], object], *, last: bool, announced: DirtyBitmap | None
    ) -> tuple[int, int, int, int]:
        opened = self._unsent.open_round(1)
        self._image.open_round(opened.number, self._announce(opened.bitmap))
        block = self._source.block
        part = self._outgoing.round(
            opened.number,
            block.words,
            opened.shares[0],
            holes=untouched(block),
            digested=last,
            announced=announced,
        )
        pages, reached = opened.bitmap.count(), False
        for frame in part.pages():
            self._carry(frame)
            if not reached and 2 * (part.sent_pages + part.zero_pages) >= pages:
                reached = True
                halfway(opened.number)
        if not reached:
            halfway(opened.number)
        for record in self.devices.records(to_end=last):
            self._carry(part.device(record))
        self._carry(part.barrier())
        self._unsent.acknowledge(opened.number, 0)
        return opened.number, pages, part.sent_pages, part.zero_pages

    def _carry(self, frame: Frame) -> None:
        self._image.apply(self._link.carry(frame), 0)
        self._target.machine.write_device_data(self._image.take_device_records())

    def _announce(self, bitmap: DirtyBitmap) -> DirtyBitmap:
        if bitmap.pages > _CODED_PAGES:
            return bitmap
        message = encode_bitmap(bitmap)
        self._link.charge(len(message))
        return decode_bitmap(bitmap.pages, message)

    def _untouched_by_both(self) -> DirtyBitmap:
        return untouched(self._source.block) & untouched(self._target.block)


def untouched(block: RamBlock) -> DirtyBitmap:
    """Return the pages that nobody ever touched: holes, which read as zeros, and to read them would fill them."""
    holes = DirtyBitmap.full(block.pages)
    for first, count in block.extents():
        holes.clear_run(first, count)
    return holes
