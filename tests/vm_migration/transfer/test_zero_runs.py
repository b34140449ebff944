"""Pages of zeros as runs: a terabyte that nobody touched costs nothing on either side."""

from uuid import UUID

import numpy as np
import pytest

from vm_migration.transfer.errors import PageOutsideRound
from vm_migration.transfer.frames import Frame, Place, Zeros
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.outgoing import OutgoingStream
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.ram_block import RamBlock

ATTEMPT = UUID(int=1)


def test_a_terabyte_that_nobody_touched_moves_as_runs_and_touches_nothing() -> None:
    source, target = RamBlock.create("source", 1 << 40), RamBlock.create("target", 1 << 40)
    source.words[1 << 27] = 7
    target.words[5] = 9
    holes = DirtyBitmap.full(source.pages)
    for first, count in source.extents():
        holes.clear_run(first, count)
    everything = DirtyBitmap.full(source.pages)
    image = IncomingImage(target.words, ATTEMPT, 1, memory_within=target.extents)
    image.open_round(0, everything)
    outgoing = OutgoingStream(ATTEMPT, 0).round(0, source.words, everything, holes=holes, digested=True)
    for frame in outgoing:
        image.apply(frame, 0)
    assert image.verify().whole
    assert outgoing.zero_pages == source.pages - outgoing.sent_pages
    assert source.words[1 << 27].tolist() == target.words[1 << 27].tolist()
    assert not target.words[5].any()
    assert target.populated_bytes() < 64 << 20


def test_a_long_run_of_zeros_that_was_not_announced_is_refused_and_changes_nothing() -> None:
    words = np.ones((400, 512), dtype=np.uint64)
    image = IncomingImage(words, ATTEMPT, 1)
    announced = DirtyBitmap.full(400)
    announced.clear_run(250, 1)
    image.open_round(0, announced)
    frame = Frame(Place(ATTEMPT, 0, 0, 0), Zeros(np.array([[0, 400]], dtype=np.uint32), digested=True))
    with pytest.raises(PageOutsideRound, match="250"):
        image.apply(frame, 0)
    assert words.all()
    assert image.stale_pages == 399
