"""One at a time acts on a machine, and who waits for too long is told."""

import asyncio

import pytest

from tests.simulation.virtual_loop import VirtualLoop
from vm_migration.errors import Unreachable
from vm_migration.machine.turns import TURN, Turns


async def test_machines_do_not_wait_for_each_other_and_one_machine_does() -> None:
    turns, order = Turns(), list[str]()

    async def act(machine: str, what: str) -> None:
        async with turns.alone(machine):
            order.append(what)

    async with turns.alone("one"):
        waiting = asyncio.create_task(act("one", "after"))
        await act("other", "beside")
        order.append("first")
    await waiting
    assert order == ["beside", "first", "after"]


def test_who_waits_for_longer_than_a_turn_is_told_that_the_machine_is_busy() -> None:
    async def wait() -> float:
        turns, loop = Turns(), asyncio.get_running_loop()
        async with turns.alone("one"):
            began = loop.time()
            with pytest.raises(Unreachable) as refusal:
                async with turns.alone("one"):
                    pass
            assert refusal.value.code == "machine-busy"
        async with turns.alone("one"):
            return loop.time() - began

    loop = VirtualLoop(1)
    try:
        assert loop.run_until_complete(wait()) == pytest.approx(TURN)
    finally:
        loop.close()
