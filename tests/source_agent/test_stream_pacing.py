"""A stream below a bandwidth, on a clock that only moves when somebody sleeps."""

import asyncio
import time

import pytest

from source_agent.pacing import Pacer


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    now = [1000.0]

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return waits


async def test_without_a_limit_nobody_waits(slept: list[float]) -> None:
    pacer = Pacer()
    await pacer.spend(1 << 40)
    assert slept == []


async def test_bytes_take_their_time_but_for_a_small_burst(slept: list[float]) -> None:
    pacer = Pacer()
    pacer.bytes_per_second = 1_000_000
    for _ in range(100):
        await pacer.spend(100_000)
    assert 9.9 <= sum(slept) <= 10.0


async def test_a_limit_may_change_at_any_time(slept: list[float]) -> None:
    pacer = Pacer()
    pacer.bytes_per_second = 1_000
    await pacer.spend(1_000)
    first = sum(slept)
    pacer.bytes_per_second = 1_000_000
    await pacer.spend(1_000)
    assert sum(slept) - first < 0.01
    pacer.bytes_per_second = 0
    await pacer.spend(1 << 40)
    assert sum(slept) - first < 0.01
