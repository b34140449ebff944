"""No interleaving of writes, harvests, maps, unmaps and sends loses a write; and one that a log loses is found.

The rounds are the real ones: logs, unsent set, outgoing and incoming engines, frames as bytes. Guest, device and kernel
are what is modelled: two writers with a log each, an IO page table, and a witness that sees every write by itself.
"""

from collections.abc import Iterator
from typing import Final
from uuid import UUID

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from vm_migration.transfer.digests import StatedDigests
from vm_migration.transfer.frames import Frame
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.outgoing import OutgoingStream
from vm_migration.transfer.unsent import OpenedRound, UnsentSet
from vm_migration.transfer.verified_pages import VerifyResult
from vm_migration.wire.bitmap_codec import decode_bitmap, encode_bitmap
from vm_migration.wire.frame import decode, encode
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.dirty_log import DirtyLog

PAGES: Final = 12
IOVAS: Final = 3
STREAMS: Final = 2
ATTEMPT: Final = UUID(int=7)
FRAME_BYTES: Final = 2 * (4096 + 16)

pages = st.integers(0, PAGES - 1)
iovas = st.integers(0, IOVAS - 1)
values = st.integers(0, 3)


class SourceMemory:
    """RAM, which pages were ever touched, and the kernel's witness."""

    def __init__(self, touched: set[int]) -> None:
        self.words = np.zeros((PAGES, 512), dtype=np.uint64)
        self.touched = set(touched)
        self.witness = DirtyLog(PAGES)
        self.witness.enabled = True
        for page in touched:
            self.words[page] = page

    def store(self, page: int, value: int) -> None:
        self.words[page, 511 * (value & 1)] = value  # zeroes a page as well as filling it
        self.touched.add(page)
        self.witness.mark_run(page, 1)

    def holes(self) -> DirtyBitmap:
        touched = DirtyBitmap.from_pages(PAGES, np.array(sorted(self.touched), dtype=np.int64))
        return DirtyBitmap.full(PAGES) - touched


class DeviceTable:
    """An IO page table with dirty bits, which die with their mapping: semantics 3.4."""

    def __init__(self) -> None:
        self.mapped: dict[int, int] = {}
        self.log = DirtyLog(IOVAS)
        self.log.enabled = True

    def query(self, into: DirtyBitmap) -> None:
        for iova in self.log.swap().indexes().tolist():
            into.set_run(self.mapped[iova], 1)

    def unmap(self, iova: int, into: DirtyBitmap) -> None:
        self.query(into)
        del self.mapped[iova]


class Migration(RuleBasedStateMachine):
    """One attempt, cut into the steps that really interleave."""

    @initialize(touched=st.sets(pages, max_size=6), witnessed=st.booleans())
    def begin(self, touched: set[int], witnessed: bool) -> None:
        self.source = SourceMemory(touched)
        self.cpu = DirtyLog(PAGES)
        self.cpu.enabled = True
        self.table = DeviceTable()
        self.queried = DirtyBitmap(PAGES)
        self.witnessed = witnessed
        self.unsent = UnsentSet(PAGES)
        self.unsent.harvest(DirtyBitmap.full(PAGES))
        self.stated = StatedDigests(PAGES)
        self.streams = [OutgoingStream(ATTEMPT, stream, payload_bytes=FRAME_BYTES) for stream in range(STREAMS)]
        self.arrived = np.zeros((PAGES, 512), dtype=np.uint64)
        self.incoming = IncomingImage(self.arrived, ATTEMPT, STREAMS)
        self.opened: OpenedRound | None = None
        self.sending: dict[int, Iterator[Frame]] = {}

    @rule(page=pages, value=values)
    def cpu_writes(self, page: int, value: int) -> None:
        self.source.store(page, value)
        self.cpu.mark_run(page, 1)

    @rule(iova=iovas, value=values)
    def device_writes(self, iova: int, value: int) -> None:
        if self.table.mapped:
            target = sorted(self.table.mapped)[iova % len(self.table.mapped)]
            self.source.store(self.table.mapped[target], value)
            self.table.log.mark_run(target, 1)

    @rule(iova=iovas, page=pages)
    def guest_maps(self, iova: int, page: int) -> None:
        self.table.mapped.setdefault(iova, page)

    @rule(iova=iovas)
    def guest_unmaps(self, iova: int) -> None:
        if self.table.mapped:
            self.table.unmap(sorted(self.table.mapped)[iova % len(self.table.mapped)], self.queried)

    @rule()
    def harvest(self) -> None:
        self.unsent.harvest(self.cpu.swap())
        self.table.query(self.queried)
        self.unsent.harvest(self.queried)
        self.queried.clear()

    @precondition(lambda self: not self.sending)
    @rule()
    def open_round(self) -> None:
        self._open(paused=False)

    @precondition(lambda self: bool(self.sending))
    @rule(stream=st.integers(0, STREAMS - 1))
    def send_a_frame(self, stream: int) -> None:
        if stream in self.sending:
            self._send(stream)

    @precondition(lambda self: bool(self.sending))
    @rule()
    def send_the_rest(self) -> None:
        self._send_all()

    def _open(self, *, paused: bool) -> None:
        self.stated.withdraw(self.source.witness.swap())
        holes = self.source.holes()
        self.opened = opened = self.unsent.open_round(STREAMS)
        self.incoming.open_round(opened.number, decode_bitmap(PAGES, encode_bitmap(opened.bitmap)))
        announced = self.stated.missing() - opened.bitmap if paused else None
        self.sending = {
            stream.stream: iter(
                stream.round(
                    opened.number,
                    self.source.words,
                    opened.shares[stream.stream],
                    holes=holes,
                    digested=self.witnessed or paused,
                    announced=announced if stream.stream == 0 else None,
                )
            )
            for stream in self.streams
        }

    def _send(self, stream: int) -> None:
        ack = self.incoming.apply(decode(encode(next(self.sending[stream]))), stream)
        if ack is not None:
            del self.sending[stream]
            assert self.opened is not None
            self.unsent.acknowledge(ack.place.round, stream)
            if self.witnessed:
                self.stated.state(self.opened.shares[stream])

    def _send_all(self) -> None:
        while self.sending:
            self._send(min(self.sending))

    def finish(self) -> VerifyResult:
        """Stop both writers, harvest last, send the last round and verify."""
        self._send_all()
        self.harvest()
        self._open(paused=True)
        self._send_all()
        assert not self.unsent.remaining()
        assert self.incoming.whole
        return self.incoming.verify()

    def differing(self) -> set[int]:
        return set(np.flatnonzero((self.source.words != self.arrived).any(axis=1)).tolist())


class SoundTracking(Migration):
    def teardown(self) -> None:
        result = self.finish()
        assert self.differing() == set()
        assert result.whole
        assert result.pages_verified == PAGES


class MissedWrite(SoundTracking):
    """A CPU log that misses writes, believed to be sound."""

    @rule(page=pages, value=values)
    def cpu_write_is_missed(self, page: int, value: int) -> None:
        self.source.store(page, value)


class UnqueriedUnmap(SoundTracking):
    """An unmap that forgets to query first, believed to be sound."""

    @rule(iova=iovas)
    def guest_unmaps_without_query(self, iova: int) -> None:
        if iova in self.table.mapped:
            self.table.unmap(iova, DirtyBitmap(PAGES))


class LossyTracking(UnqueriedUnmap, MissedWrite):
    """Both, and verification finds every page that is lost and no other."""

    def teardown(self) -> None:
        result = self.finish()
        assert set(result.mismatched) == self.differing()
        assert result.pages_mismatched == len(self.differing())
        assert result.pages_unstated == 0


@pytest.mark.parametrize("tracking", [SoundTracking, LossyTracking])
def test_every_interleaving_ends_in_equal_memory_or_in_a_named_page(tracking: type[Migration]) -> None:
    run_state_machine_as_test(tracking, settings=settings(max_examples=60, stateful_step_count=40))


@pytest.mark.parametrize("tracking", [MissedWrite, UnqueriedUnmap])
def test_the_property_above_would_find_a_lost_write(tracking: type[Migration]) -> None:
    searching = settings(
        max_examples=500,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        print_blob=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(tracking, settings=searching)


def test_one_missed_write_is_caught_on_an_otherwise_quiet_machine() -> None:
    for witnessed in (False, True):
        migration = LossyTracking()
        migration.begin(touched={3, 4, 11}, witnessed=witnessed)
        migration.harvest()
        migration.open_round()
        migration._send_all()
        migration.cpu_write_is_missed(page=4, value=2)
        result = migration.finish()
        assert result.mismatched == (4,)
        assert not result.whole
