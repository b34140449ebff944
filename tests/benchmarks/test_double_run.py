"""The look for a guest that runs on two hosts cannot pass without having seen the guest."""

import asyncio

import pytest

from benchmarks.double_run import Unseen, watched


async def test_a_guest_that_runs_on_two_hosts_at_once_is_seen() -> None:
    found, done = iter([1, 0, 2, 1]), asyncio.Event()

    async def running() -> int:
        at = next(found, None)
        if at is None:
            done.set()
            return 1
        return at

    async with watched(running, every=0) as seen:
        await done.wait()
    assert seen.doubled
    assert seen.looks >= 3


async def test_one_that_runs_on_one_host_at_a_time_is_not_doubled() -> None:
    looked = asyncio.Event()

    async def running() -> int:
        looked.set()
        return 1

    async with watched(running, every=0) as seen:
        await looked.wait()
    assert not seen.doubled


async def test_what_ended_the_look_is_raised() -> None:
    failed = asyncio.Event()

    async def running() -> int:
        failed.set()
        raise OSError("too many open files")

    with pytest.raises(OSError, match="too many"):
        async with watched(running, every=0):
            await failed.wait()


async def test_a_look_that_never_saw_the_guest_proves_nothing() -> None:
    looked = asyncio.Event()

    async def nowhere() -> int:
        looked.set()
        return 0

    with pytest.raises(Unseen):
        async with watched(nowhere, every=0):
            await looked.wait()


async def test_what_went_wrong_meanwhile_is_told_before_that() -> None:
    async def nowhere() -> int:
        return 0

    with pytest.raises(ZeroDivisionError):
        async with watched(nowhere, every=0):
            raise ZeroDivisionError
