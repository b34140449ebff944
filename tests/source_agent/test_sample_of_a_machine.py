"""A machine looked at for a moment: what is begun is ended, and nobody looks while an attempt is open."""

import asyncio
import itertools
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from source_agent.contents import data_bytes_of, packings_of
from source_agent.dirty_rate import lines_of, measure_windows
from source_agent.holdings import Holding, Holdings
from source_agent.sampling import SLICES, Sampler
from tests.fakes.fake_machine import FakeMachine, Held
from tests.fakes.streaming_machine import StreamingMachine
from tests.source_agent.departures import leaving
from vm_migration.errors import InvalidInput
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineRefused
from vm_migration.machine.port import Harvest
from vm_migration.machine.windows import LONGEST_WINDOW_MS, SHORTEST_SAMPLE_MS
from vm_migration.transfer.codecs import Compressor
from vm_migration.transfer.frames import Codec
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock
from vmm.process.control import Description, Tracking
from vmm.process.sampled_writes import WritesMeasured

LOOKED_AT = ["start tracking for dirty-rate", *["harvest"] * SLICES, "stop tracking", "ram"]


async def looked_up(held: Held) -> Holding:
    """Return the machine as it is found, with what its process says."""
    found = await holdings_of(held).find("fake")
    return replace(found, description=await held.machine.describe())


def holdings_of(held: Held) -> Holdings:
    holdings = Holdings(held.journals, held.hypervisor)
    holdings.adopt(held.custody)
    return holdings


async def test_a_machine_is_looked_at_in_slices_and_left_as_it_was(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OWNER) as held:
        holdings = holdings_of(held)
        held.machine.filled = 1
        found = await Sampler(holdings).of(await looked_up(held), SHORTEST_SAMPLE_MS)
        assert found is not None
        assert [packing.codec for packing in found.packings] == [Codec.LZ4, Codec.ZSTD]
        assert held.machine.calls == LOOKED_AT
        assert found.window_ms >= SHORTEST_SAMPLE_MS
        assert [len(line) for line in found.lines] == [8, 4, 2, 1]


async def test_whoever_waits_while_somebody_looks_takes_what_that_one_saw(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OWNER) as held:
        holdings = holdings_of(held)
        sampler, holding = Sampler(holdings), await looked_up(held)
        found = await asyncio.gather(*(sampler.of(holding, SHORTEST_SAMPLE_MS) for _ in range(3)))
        assert held.machine.calls == LOOKED_AT
        assert found[0] is found[1] is found[2]
        await sampler.of(holding, SHORTEST_SAMPLE_MS)  # asked later: it is looked at anew
        assert held.machine.calls == LOOKED_AT * 2


@pytest.mark.parametrize("state", [State.OUTGOING, State.STOPPED])
async def test_nobody_looks_while_an_attempt_is_open(tmp_path: Path, state: State) -> None:
    with leaving(tmp_path, state) as held:
        holdings = holdings_of(held)
        assert await Sampler(holdings).of(await looked_up(held), SHORTEST_SAMPLE_MS) is None
        assert held.machine.calls == []


async def test_neither_a_paused_machine_nor_no_time_is_looked_at(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OWNER) as held:
        holdings = holdings_of(held)
        sampler = Sampler(holdings)
        assert await sampler.of(await looked_up(held), 0) is None
        held.machine.running = False
        assert await sampler.of(await looked_up(held), SHORTEST_SAMPLE_MS) is None
        assert held.machine.calls == []


@pytest.mark.parametrize("window_ms", [1, SHORTEST_SAMPLE_MS - 1, LONGEST_WINDOW_MS + 1])
async def test_a_look_is_bounded(tmp_path: Path, window_ms: int) -> None:
    with leaving(tmp_path, State.OWNER) as held:
        holdings = holdings_of(held)
        with pytest.raises(InvalidInput, match=f"Measuring for {window_ms} ms"):
            await Sampler(holdings).of(await looked_up(held), window_ms)
        assert held.machine.calls == []


async def test_a_harvest_that_may_have_missed_pages_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def missed(self: FakeMachine) -> Harvest:
        return Harvest(DirtyBitmap(self.pages), DirtyBitmap(self.pages), "the kernel refused")

    monkeypatch.setattr(FakeMachine, "harvest", missed)
    with leaving(tmp_path, State.OWNER) as held:
        with pytest.raises(MachineRefused, match="the kernel refused"):
            await measure_windows(held.machine, SHORTEST_SAMPLE_MS, SLICES)
        assert held.machine.calls[-1] == "stop tracking"
        holdings = holdings_of(held)
        assert await Sampler(holdings).of(await looked_up(held), SHORTEST_SAMPLE_MS) is None


async def test_what_a_tracker_always_reports_is_not_taken_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 64 pages the container maps 32; the vCPUs write one of those, and one other."""
    describe = FakeMachine.describe

    async def mapped(_self: FakeMachine) -> Harvest:
        dma = DirtyBitmap(64)
        dma.set_run(0, 32)
        cpu = DirtyBitmap.from_pages(64, np.array([5, 40], dtype=np.int64))
        return Harvest(cpu, dma, None)

    async def inexact(self: FakeMachine) -> Description:
        return msgspec.structs.replace(await describe(self), tracking=Tracking(exact=False, mapped_bytes=32 * 4096))

    monkeypatch.setattr(FakeMachine, "harvest", mapped)
    with leaving(tmp_path, State.OWNER) as held:
        exact = await measure_windows(held.machine, SHORTEST_SAMPLE_MS, 2)
        assert exact.lines[-1] == (33 * PAGE_SIZE,)
        assert exact.cpu_share == pytest.approx(1 / 33)
        monkeypatch.setattr(FakeMachine, "describe", inexact)
        found = await measure_windows(held.machine, SHORTEST_SAMPLE_MS, 2)
        assert found.lines == ((PAGE_SIZE, PAGE_SIZE), (PAGE_SIZE,))
        assert found.cpu_share == 1


def test_windows_are_joined_from_slices() -> None:
    slices = [DirtyBitmap.from_pages(64, np.array(pages, dtype=np.int64)) for pages in ([1, 2], [2, 3], [1], [9])]
    assert lines_of(slices) == tuple(
        tuple(count * PAGE_SIZE for count in line) for line in ((2, 2, 1, 1), (3, 2), (4,))
    )


def test_zero_pages_and_holes_hold_no_data() -> None:
    ram = RamBlock.create("sampled", 4096 * PAGE_SIZE)
    assert data_bytes_of(ram).high == 0
    ram.words[1000:2000] = 0  # touched, and zero
    ram.words[3000:3500, 7] = 1
    found = data_bytes_of(ram)
    assert (found.low, found.high) == pytest.approx((500 * PAGE_SIZE, 500 * PAGE_SIZE))


def test_of_much_memory_a_part_is_looked_at() -> None:
    pages = 16_384
    ram = RamBlock.create("sampled", pages * PAGE_SIZE)
    ram.words[:, 0] = np.arange(pages) % 3 == 0
    found = data_bytes_of(ram)
    assert found.low <= pages * PAGE_SIZE / 3 <= found.high
    assert found.high - found.low < 0.1 * pages * PAGE_SIZE


def test_memory_without_contents_tells_nothing_of_codecs() -> None:
    ram = RamBlock.create("sampled", 256 * PAGE_SIZE)
    assert packings_of(ram, itertools.count().__next__) == ()
    ram.words[10:20] = 0
    assert packings_of(ram, itertools.count().__next__) == ()


def test_codecs_are_tried_on_whole_runs_of_what_memory_holds() -> None:
    ram = RamBlock.create("sampled", 8192 * PAGE_SIZE)
    numbers = np.random.default_rng(1)
    ram.words[:4096] = numbers.integers(0, 1 << 63, (4096, 512), dtype=np.uint64)
    ram.words[4096:] = numbers.integers(0, 1 << 12, (4096, 512), dtype=np.uint64)
    whole = [memoryview(ram.words[first : first + 256].tobytes()) for first in range(0, 8192, 256)]
    for packing in packings_of(ram, time.monotonic_ns):
        packed = sum(len(Compressor().compressed(packing.codec, frame)) for frame in whole)
        assert packing.ratio.low <= packed / (8192 * PAGE_SIZE) <= packing.ratio.high
        assert packing.bytes_per_s > 0


def test_pages_that_nothing_makes_smaller_are_not_said_to_become_larger() -> None:
    ram = RamBlock.create("sampled", 64 * PAGE_SIZE)
    ram.words[:] = np.random.default_rng(1).integers(0, 1 << 63, (64, 512), dtype=np.uint64)
    lz4, zstd = packings_of(ram, itertools.count().__next__)
    assert (lz4.codec, zstd.codec) == (Codec.LZ4, Codec.ZSTD)
    assert lz4.ratio.high == 1.0
    assert zstd.ratio.high == 1.0


@pytest.mark.parametrize("hands_out", [True, False])
async def test_a_machine_with_a_stream_of_its_own_tells_a_rate_and_no_codec_has_its_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hands_out: bool
) -> None:
    with leaving(tmp_path, State.OWNER) as held:
        ended = WritesMeasured(ended=True, window_ms=1000, bytes_per_s=5 << 20)
        machine = StreamingMachine(held.machine.process, pages=4, filled=1, hands_out_ram=hands_out, written=[ended])
        held.custody.port = machine
        described = msgspec.structs.replace(await machine.describe(), populated_bytes=4 * PAGE_SIZE)

        async def describe() -> Description:
            return described

        monkeypatch.setattr(machine, "describe", describe)
        holding = replace(await looked_up(held), description=described)
        found = await Sampler(holdings_of(held)).of(holding, SHORTEST_SAMPLE_MS)
        assert found is not None
        assert (found.lines, found.packings, found.bytes_per_s) == ((), (), float(5 << 20))
        assert found.data_bytes.likely == (PAGE_SIZE if hands_out else 4 * PAGE_SIZE)
        assert found.dirtying(1 << 40).likely.after(2000) == 2 * (5 << 20)
