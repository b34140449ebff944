"""Repeating a step until it succeeds, and only as long as this agent has a say."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_agent.insisting import insist, pause_before
from vm_migration.errors import Stale, Unreachable
from vm_migration.machine.errors import MachineGone


@given(st.integers(0, 200), st.sampled_from([2.0, 10.0]))
def test_pauses_grow_up_to_a_bound(retry: int, longest: float) -> None:
    assert 0 < pause_before(retry, longest) <= pause_before(retry + 1, longest) <= longest


async def test_whatever_fails_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    failures = [Unreachable("silent", "Not now"), MachineGone("gone"), RuntimeError("a bug of ours")]
    told: list[str] = []

    async def step() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    assert await insist(step, told.append) == "done"
    assert told == ["Not now", "gone", "internal error: RuntimeError"]
    assert slept == [0.05, 0.1, 0.2]


async def test_who_has_no_say_stops() -> None:
    async def step() -> None:
        raise Stale("journal-moved", "Somebody else writes it")

    with pytest.raises(Stale):
        await insist(step, lambda _: pytest.fail("nothing is waited for"))
