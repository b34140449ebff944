"""A bandwidth is kept within five percent, over all streams, and a new one holds within a second; in virtual time."""

import asyncio
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from source_agent.pacing import Pacer, frame_payload
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_time import in_virtual_time
from vm_migration.transfer.frames import MAX_PAYLOAD
from vm_migration.transfer.outgoing import pages_per_frame

BURST_SECONDS = 0.02
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

    async def frames(self, sizes: list[int]) -> None:
        """Send these frames and no more."""
        for size in sizes:
            self.sent.append((asyncio.get_running_loop().time(), size))
            self.pacer.spend(size)
            while not await self.pacer.ready(HEARTBEAT, unless=self.never):
                pass

    def between(self, begin: float, end: float) -> int:
        return sum(size for at, size in self.sent if begin <= at < end)


@settings(max_examples=40)
@given(
    st.integers(1 << 20, 1 << 30),
    st.lists(st.lists(st.integers(1 << 12, FRAME), min_size=1, max_size=5), min_size=1, max_size=4),
)
def test_no_window_carries_more_than_the_bandwidth_a_burst_and_a_frame_of_each_stream(
    rate: int, streams: list[list[int]]
) -> None:
    async def scenario(_loop: VirtualLoop) -> None:
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


@settings(max_examples=20)
@given(st.integers(1 << 20, 1 << 27), st.integers(1, 4))
def test_over_ten_seconds_a_bandwidth_is_kept_within_five_percent(rate: int, streams: int) -> None:
    async def scenario(_loop: VirtualLoop) -> None:
        pacer = Pacer()
        pacer.bytes_per_second = rate
        wire, begin = Wire(pacer), asyncio.get_running_loop().time()
        frame = max(1, min(FRAME, rate // 50))
        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(wire.stream([frame], begin + 10.0))
        assert abs(wire.between(begin, begin + 10.0) / (10.0 * rate) - 1) <= 0.05

    in_virtual_time(scenario)


@settings(max_examples=40)
@given(
    st.integers(4 * 50 * 4200, 1 << 30),
    st.integers(1, 4),
    st.lists(st.tuples(st.floats(0.001, 0.3), st.integers(1, 30)), min_size=1, max_size=8),
)
def test_no_window_of_a_second_carries_five_percent_more_than_the_bandwidth(
    rate: int, streams: int, rounds: list[tuple[float, int]]
) -> None:
    """Small late rounds too: each is some frames of each stream, and then nothing until the barrier is answered."""

    async def scenario(_loop: VirtualLoop) -> None:
        pacer = Pacer()
        pacer.bytes_per_second = rate
        wire = Wire(pacer)
        frame = frame_payload(rate, streams)
        for answered_after, frames in rounds:
            async with asyncio.TaskGroup() as group:
                for _ in range(streams):
                    group.create_task(wire.frames([frame] * frames))
            await asyncio.sleep(answered_after)  # virtual: the answer's time
        times, sizes = [at for at, _ in wire.sent], [size for _, size in wire.sent]
        up_to = [0, *accumulate(sizes)]
        for begin, first in enumerate(times):
            assert up_to[bisect_left(times, first + 1.0)] - up_to[begin] <= 1.05 * rate

    in_virtual_time(scenario)


@given(st.integers(0, 1 << 40), st.integers(1, 16))
def test_a_frame_has_room_for_a_page_and_none_is_larger_than_frames_may_be(rate: int, streams: int) -> None:
    payload = frame_payload(rate, streams)
    assert 1 <= pages_per_frame(payload) <= pages_per_frame(MAX_PAYLOAD)
    assert payload == MAX_PAYLOAD or rate
    assert payload * streams <= max(0.02 * rate, streams * 4112) or not rate


def test_who_waits_under_a_low_bandwidth_goes_on_under_a_higher_one_within_a_second() -> None:
    async def scenario(_loop: VirtualLoop) -> None:
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
    async def scenario(_loop: VirtualLoop) -> None:
        pacer, loop = Pacer(), asyncio.get_running_loop()
        pacer.bytes_per_second = 1 << 26
        wire, begin = Wire(pacer), loop.time()
        loop.call_at(begin + 5, setattr, pacer, "bytes_per_second", 1 << 22)
        await wire.stream([FRAME], begin + 15)
        assert wire.between(begin + 6, begin + 15) <= 9 * (1 << 22) * 1.05 + FRAME

    in_virtual_time(scenario)


def test_a_bandwidth_that_is_lifted_ends_the_wait_and_leaves_no_debt_for_the_next() -> None:
    async def scenario(_loop: VirtualLoop) -> None:
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
