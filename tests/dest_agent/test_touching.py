"""A trial of how fast memory is made ready: real memory, and a clock that the test holds."""

import asyncio
import os
import threading
import time
from itertools import count

import pytest

from dest_agent.touching import TouchTrial
from vmm.memory.ram_block import RamBlock

MIB = 1 << 20


def _memory(name: str, size: int) -> int:
    descriptor = os.memfd_create(name)
    os.ftruncate(descriptor, size)
    return descriptor


async def at_once(seconds: float) -> None:
    """Wait for nothing."""


def ticking(ms: int) -> TouchTrial:
    """Return a trial at whose every look at the clock so much time has passed."""
    times = count(step=ms * 1_000_000)
    return TouchTrial(lambda: next(times), at_once)


async def test_a_small_machines_memory_is_touched_as_a_whole_and_costs_what_the_second_touch_does() -> None:
    moments = iter([0, 8, 0, 2])
    trial = TouchTrial(lambda: next(moments) * 1_000_000, at_once)
    assert await trial.ms_per_byte(16 * MIB, 1 << 40, 1000) == pytest.approx(2 / (16 * MIB))


async def test_what_the_trial_does_not_reach_costs_what_the_first_touch_does() -> None:
    # 100 ms for each piece, for 800 ms: eight of ten pieces; then 1 ms for each.
    first = [0, *range(100, 900, 100), 800]
    second = [0, *range(1, 8), 8]
    moments = iter([*first, *second])
    trial = TouchTrial(lambda: next(moments) * 1_000_000, at_once)
    found = await trial.ms_per_byte(10 * 64 * MIB, 1 << 40, 1000)
    assert found == pytest.approx((8 * 1 + 2 * 100) / (10 * 64 * MIB))


async def test_what_was_touched_is_kept_until_its_time_is_over() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    found = await TouchTrial(time.monotonic_ns, sleep).ms_per_byte(MIB, 1 << 40, 10_000)
    assert found is not None
    assert [0 < seconds <= 8 for seconds in slept] == [True]


async def test_what_was_touched_is_given_back_before_it_is_touched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[RamBlock] = []
    held: list[int] = []

    def create(name: str, size: int, *, whole: bool) -> RamBlock:
        held.append(sum(os.fstat(one).st_blocks for one in copies))
        made.append(block := RamBlock.adopt(_memory(name, size)))
        copies.append(os.dup(block.descriptor))
        assert whole
        return block

    copies: list[int] = []
    monkeypatch.setattr("dest_agent.touching.RamBlock.create", create)
    try:
        assert await TouchTrial(time.monotonic_ns, at_once).ms_per_byte(MIB, 1 << 40, 10_000) is not None
        assert (len(made), held) == (2, [0, 0])  # though both are still mapped here
        assert sum(os.fstat(one).st_blocks for one in copies) == 0
    finally:
        for one in copies:
            os.close(one)


async def test_too_little_memory_tells_nothing() -> None:
    assert await ticking(10).ms_per_byte(1 << 30, 1 << 40, 25) is None


@pytest.mark.parametrize(("ram", "left"), [(16 * MIB, -1), (16 * MIB, 0), (16 * MIB, 63 * MIB), (0, 1 << 40)])
async def test_a_host_without_memory_to_spare_touches_none(
    ram: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RamBlock, "create", pytest.fail)
    assert await ticking(1).ms_per_byte(ram, left, 1000) is None


async def test_one_trial_is_made_at_a_time() -> None:
    going, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def clock_ns() -> int:
        loop.call_soon_threadsafe(going.set)
        release.wait(10)
        return 0

    trial = TouchTrial(clock_ns, at_once)
    first = asyncio.create_task(trial.ms_per_byte(MIB, 1 << 40, 1000))
    await going.wait()
    assert await trial.ms_per_byte(MIB, 1 << 40, 1000) is None
    first.cancel()
    await asyncio.wait([first])
    assert await trial.ms_per_byte(MIB, 1 << 40, 1000) is None  # its thread goes on
    release.set()


async def test_a_host_that_gives_none_after_all_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: RamBlock, first_page: int, pages: int) -> None:
        raise MemoryError(self, first_page, pages)

    monkeypatch.setattr(RamBlock, "populate", none)
    trial = ticking(1)
    assert await trial.ms_per_byte(MIB, 1 << 40, 1000) is None
    monkeypatch.undo()
    assert await trial.ms_per_byte(MIB, 1 << 40, 1000) is not None
