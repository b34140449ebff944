"""A bandwidth is kept within five percent, over all streams, and a new one holds within a second; in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from source_agent.pacing import Pacer
from tests.simulation.virtual_loop import VirtualLoop

BURST_SECONDS = 0.05
HEARTBEAT = 1.0
FRAME = 1 << 18


@dataclass
class Wire:
    """What went over it, and when."""

    pacer: Pacer
    sent: list[tuple[float, int]] = field(default_factory=list)
    never: asyncio.Event = field(default_factory=asyncio.Event)

    async def stream(self, frames: list[int], until: float) -> None:
        """Send frames of these sizes over and over, as a bulk stream does: first the frame, then the wait."""
        loop = asyncio.get_running_loop()
        at = 0
        while loop.time() < until:
            size = frames[at % len(frames)]
            at += 1
            self.sent.append((loop.time(), size))
            self.pacer.spend(size)
            while not await self.pacer.ready(HEARTBEAT, unless=self.never):
                pass

    def between(self, begin: float, end: float) -> int:
        return sum(size for at, size in self.sent if begin <= at < end)


def in_virtual_time(scenario: Callable[[], Coroutine[object, object, None]]) -> None:
    loop = VirtualLoop(1)
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.end()
        loop.close()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1 << 20, 1 << 30),
    st.lists(st.lists(st.integers(1 << 12, FRAME), min_size=1, max_size=5), min_size=1, max_size=4),
)
def test_no_window_carries_more_than_the_bandwidth_a_burst_and_a_frame_of_each_stream(
    rate: int, streams: list[list[int]]
) -> None:
    async def scenario() -> None:
        pacer = Pacer()
        pacer.bytes_per_second = rate
        wire = Wire(pacer)
        ends = asyncio.get_running_loop().time() + 40 * len(streams) * FRAME / rate
        async with asyncio.TaskGroup() as group:
            for sizes in streams:
                group.create_task(wire.stream(sizes, ends))
        moments = sorted({at for at, _ in wire.sent})
        slack = BURST_SECONDS * rate + len(streams) * FRAME + 1
        for first in moments[:: 1 + len(moments) // 20]:
            for last in moments[:: 1 + len(moments) // 20]:
                assert last < first or wire.between(first, last + 1e-9) <= rate * (last - first) + slack

    in_virtual_time(scenario)


@settings(max_examples=20, deadline=None)
@given(st.integers(1 << 20, 1 << 27), st.integers(1, 4))
def test_over_ten_seconds_a_bandwidth_is_kept_within_five_percent(rate: int, streams: int) -> None:
    async def scenario() -> None:
        pacer = Pacer()
        pacer.bytes_per_second = rate
        wire, begin = Wire(pacer), asyncio.get_running_loop().time()
        frame = max(1, min(FRAME, rate // 50))
        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(wire.stream([frame], begin + 10.0))
        assert abs(wire.between(begin, begin + 10.0) / (10.0 * rate) - 1) <= 0.05

    in_virtual_time(scenario)


def test_who_waits_under_a_low_bandwidth_goes_on_under_a_higher_one_within_a_second() -> None:
    async def scenario() -> None:
        pacer, loop = Pacer(), asyncio.get_running_loop()
        pacer.bytes_per_second = 1 << 16
        wire, begin = Wire(pacer), loop.time()
        loop.call_at(begin + 10.02, setattr, pacer, "bytes_per_second", 1 << 24)
        await wire.stream([FRAME], begin + 20)
        slow, fast = wire.between(begin, begin + 10.02), wire.between(begin + 11, begin + 20)
        assert slow <= 10.02 * (1 << 16) + FRAME
        assert abs(fast / (9 * (1 << 24)) - 1) <= 0.05
        assert wire.between(begin + 10.02, begin + 11) > 0

    in_virtual_time(scenario)


def test_a_lower_bandwidth_holds_within_a_second() -> None:
    async def scenario() -> None:
        pacer, loop = Pacer(), asyncio.get_running_loop()
        pacer.bytes_per_second = 1 << 26
        wire, begin = Wire(pacer), loop.time()
        loop.call_at(begin + 5, setattr, pacer, "bytes_per_second", 1 << 22)
        await wire.stream([FRAME], begin + 15)
        assert wire.between(begin + 6, begin + 15) <= 9 * (1 << 22) * 1.05 + FRAME

    in_virtual_time(scenario)


def test_a_bandwidth_that_is_lifted_ends_the_wait_and_leaves_no_debt_for_the_next() -> None:
    async def scenario() -> None:
        pacer, loop = Pacer(), asyncio.get_running_loop()
        pacer.bytes_per_second = 1_000
        begin = loop.time()
        pacer.spend(1_000_000_000)
        loop.call_at(begin + 3, setattr, pacer, "bytes_per_second", 0)
        never = asyncio.Event()
        while not await pacer.ready(HEARTBEAT, unless=never):
            pass
        assert 3 <= loop.time() - begin <= 3.2
        pacer.bytes_per_second = 1_000
        assert await pacer.ready(HEARTBEAT, unless=never)

    in_virtual_time(scenario)
