"""A stream below a bandwidth."""

import asyncio

import pytest

from source_agent.pacing import Pacer
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_time import in_virtual_time

NOTHING = 1e-5
"""Seconds: a pacer does not wait for less than a millionth."""


async def waited(pacer: Pacer, count: int) -> float:
    """Return how long so many bytes more had to wait."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    pacer.spend(count)
    while not await pacer.ready(10.0, asyncio.Event()):
        pass
    return loop.time() - before


def test_without_a_limit_nobody_waits() -> None:
    async def scenario(_loop: VirtualLoop) -> None:
        assert await waited(Pacer(), 1 << 40) == 0

    in_virtual_time(scenario)


def test_bytes_take_their_time_but_for_a_small_burst() -> None:
    async def scenario(_loop: VirtualLoop) -> None:
        pacer = Pacer()
        pacer.bytes_per_second = 1_000_000
        assert sum([await waited(pacer, 20_000) for _ in range(10)]) == pytest.approx(0.2, abs=NOTHING)
        await asyncio.sleep(1)  # nothing is sent, and 20 ms of it may be sent at once then
        assert sum([await waited(pacer, 20_000) for _ in range(10)]) == pytest.approx(0.18, abs=NOTHING)

    in_virtual_time(scenario)


def test_a_limit_may_change_at_any_time() -> None:
    async def scenario(_loop: VirtualLoop) -> None:
        pacer = Pacer()
        pacer.bytes_per_second = 1_000
        pacer.spend(100)
        pacer.bytes_per_second = 0
        assert await waited(pacer, 1 << 40) == 0

    in_virtual_time(scenario)


def test_what_was_sent_under_a_low_limit_does_not_wait_for_it_under_a_higher_one() -> None:
    """A stream stood still for a quarter of an hour after its limit had been lifted."""

    async def scenario(_loop: VirtualLoop) -> None:
        pacer = Pacer()
        pacer.bytes_per_second = 1_000
        pacer.spend(1_000_000)
        assert not await pacer.ready(0.001, asyncio.Event())
        pacer.bytes_per_second = 100_000_000
        assert await waited(pacer, 0) == pytest.approx(0.01, abs=NOTHING)

    in_virtual_time(scenario)


async def test_who_waits_for_long_is_told_so_in_between() -> None:
    pacer = Pacer()
    pacer.bytes_per_second = 1_000
    pacer.spend(1_000_000)
    assert not await pacer.ready(0.001, asyncio.Event())


async def test_a_wait_ends_when_somebody_says_so() -> None:
    pacer, hurry = Pacer(), asyncio.Event()
    pacer.bytes_per_second = 1_000
    pacer.spend(1_000_000)
    asyncio.get_running_loop().call_soon(hurry.set)
    assert await pacer.ready(100.0, hurry)
