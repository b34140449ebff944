"""The loop of the simulation: virtual time, processes that are held, and an order that a seed draws."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.simulation.hosts import end_process
from tests.simulation.virtual_loop import START, Deadlock, Livelock, Process, ProcessKilled, VirtualLoop

TRACED = """
import hashlib
from tests.simulation.schedule import run
lines = [f"{line.time:.9f} {line.who} {line.what}" for seed in (3, 40) for line in run(seed).trace]
print(hashlib.sha256("\\n".join(lines).encode()).hexdigest())
"""


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop(7)
    yield loop
    loop.end()
    loop.close()


def test_sleeps_take_no_time_and_end_in_order(loop: VirtualLoop) -> None:
    ended: list[float] = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append(loop.time() - START)

    async def all_of_them() -> None:
        await asyncio.gather(*(sleep(seconds) for seconds in (3600.0, 0.5, 60.0)))

    loop.run_until_complete(all_of_them())
    assert ended == pytest.approx([0.5, 60.0, 3600.0])


def test_a_timeout_is_virtual_too(loop: VirtualLoop) -> None:
    async def wait() -> None:
        async with asyncio.timeout(120):
            await loop.create_future()

    with pytest.raises(TimeoutError):
        loop.run_until_complete(wait())
    assert loop.time() - START == pytest.approx(120)


def test_who_waits_for_nothing_is_found_out(loop: VirtualLoop) -> None:
    with pytest.raises(Deadlock):
        loop.run_until_complete(loop.create_future())


def test_who_never_waits_is_found_out(loop: VirtualLoop) -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - that is what is found out
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        loop.run_until_complete(spin())


def test_a_frozen_process_goes_on_where_it_stood_and_a_killed_one_never(loop: VirtualLoop) -> None:
    ticks: dict[str, int] = {"frozen": 0, "killed": 0}

    async def tick(name: str) -> None:
        while True:
            await asyncio.sleep(1)
            ticks[name] += 1

    frozen, killed = Process("frozen"), Process("killed")
    for process in (frozen, killed):
        loop.create_task(tick(process.name), context=process.context.copy())

    async def scenario() -> None:
        await asyncio.sleep(3.5)
        frozen.frozen = True
        loop.hold(frozen)
        end_process(loop, killed)
        await asyncio.sleep(10)
        assert ticks == {"frozen": 3, "killed": 3}
        frozen.frozen = False
        loop.let_run(frozen)
        await asyncio.sleep(4.7)
        assert ticks == {"frozen": 8, "killed": 3}

    loop.run_until_complete(scenario())


def test_a_blocking_call_answers_or_fails_and_one_that_kills_its_process_never_comes_back(loop: VirtualLoop) -> None:
    def refuse() -> None:
        raise ValueError("no")

    def die() -> None:
        raise ProcessKilled

    async def scenario() -> None:
        assert await asyncio.to_thread(sum, (1, 2)) == 3
        with pytest.raises(ValueError, match="no"):
            await asyncio.to_thread(refuse)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.to_thread(die)

    loop.run_until_complete(scenario())


def test_seeds_draw_other_orders_between_processes_and_none_within_one() -> None:
    orders = set()
    for seed in range(20):
        loop = VirtualLoop(seed)
        order: list[str] = []
        for name in ("a", "b"):
            context = Process(name).context
            for number in range(3):
                loop.call_soon(order.append, f"{name}{number}", context=context)
        loop.run_until_complete(asyncio.sleep(1))
        loop.end()
        loop.close()
        assert [each for each in order if each[0] == "a"] == ["a0", "a1", "a2"]
        orders.add(tuple(order))
    assert len(orders) > 5


def test_a_seed_is_the_same_schedule_in_every_process() -> None:
    """Neither the hashes of text nor the places of objects in memory decide anything."""
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", TRACED], env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.PIPE, text=True, check=True, timeout=100,
        )  # fmt: skip
        digests.add(done.stdout)
    assert len(digests) == 1
