"""The agent's loop answers heartbeats meanwhile: no one frame keeps it for half a second, however large the RAM is."""

import time
from collections.abc import Iterator
from uuid import UUID

import numpy as np
import pytest

from vm_migration.transfer.frames import MAX_ZERO_PAGES
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.outgoing import OutgoingStream
from vm_migration.wire.frame import decode, encode
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.ram_block import RamBlock

LONGEST_SECONDS = 0.5
"""Of this thread's own time: a machine that is busy with other work keeps the loop for longer, whatever is applied."""
FILLED = 256
ATTEMPT = UUID(int=5)


@pytest.fixture
def rams() -> Iterator[tuple[RamBlock, RamBlock]]:
    """A source's RAM, most of it zeros that are told in the largest frame there is, and a destination's, populated."""
    size = (MAX_ZERO_PAGES + FILLED) * 4096
    leaving, arriving = RamBlock.create("leaving", size), RamBlock.create("arriving", size)
    leaving.words[:FILLED] = np.arange(1, FILLED * 512 + 1, dtype=np.uint64).reshape(FILLED, 512)
    arriving.populate(0, arriving.pages)
    yield leaving, arriving
    leaving.close()
    arriving.close()


def test_no_frame_keeps_the_loop(rams: tuple[RamBlock, RamBlock]) -> None:
    leaving, arriving = rams
    everything = DirtyBitmap.full(leaving.pages)
    image, stream = IncomingImage(arriving.words, ATTEMPT, 1), OutgoingStream(ATTEMPT, 0)
    kinds: dict[str, float] = {}
    for number, announced in enumerate((None, everything)):
        dirty = everything if announced is None else DirtyBitmap(leaving.pages)
        frames = stream.round(number, leaving.words, dirty, announced=announced)
        image.open_round(number, dirty)
        for frame in frames.pages():
            message = encode(frame)
            started = time.thread_time()
            image.apply(decode(message), 0)
            kind = type(frame.body).__name__
            kinds[kind] = max(kinds.get(kind, 0.0), time.thread_time() - started)
        image.apply(decode(encode(frames.barrier())), 0)
    started = time.thread_time()
    assert image.verify().whole
    kinds["verify"] = time.thread_time() - started
    assert set(kinds) >= {"Pages", "Zeros", "Digests", "verify"}
    assert max(kinds.values()) < LONGEST_SECONDS, kinds
