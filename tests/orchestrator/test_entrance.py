"""So many orders are looked at closely at a time, in turn, and one that takes long holds up nobody for long."""

import asyncio
import contextlib
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.entrance import Entrance
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_time import in_virtual_time

PLACES = 3
SECONDS = 0.5


@dataclass(frozen=True)
class Visit:
    """When somebody was let in, and how long he stays, in virtual seconds."""

    number: int
    at: float
    stays: float


async def visited(loop: VirtualLoop, stays: list[float]) -> list[Visit]:
    """Have all come at once; return how they were let in."""
    entrance, begun, let_in = Entrance(PLACES, SECONDS), loop.time(), list[Visit]()

    async def visit(number: int, seconds: float) -> None:
        async with entrance.place():
            let_in.append(Visit(number, loop.time() - begun, seconds))
            await asyncio.sleep(seconds)  # virtual time

    async with asyncio.TaskGroup() as group:
        for number, seconds in enumerate(stays):
            group.create_task(visit(number, seconds))
    assert entrance.waiting == 0
    return let_in


@settings(max_examples=60)
@given(st.lists(st.sampled_from((0.0, 0.125, 0.25, SECONDS, 2.0, 1024.0)), max_size=20))
def test_nobody_has_more_company_than_there_are_places_but_those_who_have_been_in_for_long(stays: list[float]) -> None:
    let_in = in_virtual_time(lambda loop: visited(loop, stays))
    assert [one.number for one in let_in] == list(range(len(stays))), "in turn"
    for one in let_in:
        beside = [each for each in let_in if each.at <= one.at < each.at + min(each.stays, SECONDS)]
        assert len(beside) <= PLACES


def test_who_never_leaves_holds_up_the_others_for_as_long_as_a_place_is_held_and_no_longer() -> None:
    let_in = in_virtual_time(lambda loop: visited(loop, [1000.0] * 7))
    assert [one.at for one in let_in] == [0.0] * 3 + [SECONDS] * 3 + [2 * SECONDS]


def test_who_gives_up_while_it_waits_takes_no_place_and_one_that_fails_gives_its_own_back() -> None:
    async def run(loop: VirtualLoop) -> None:
        entrance = Entrance(1, SECONDS)

        async def fails() -> None:
            async with entrance.place():
                await asyncio.sleep(SECONDS / 2)  # virtual time
                raise ValueError

        failing = asyncio.create_task(fails())
        waiting = asyncio.create_task(fails())
        await asyncio.sleep(SECONDS / 4)
        assert entrance.waiting == 1
        waiting.cancel()
        await asyncio.wait({waiting, failing})
        assert entrance.waiting == 0
        failed_at = loop.time()
        with contextlib.suppress(ValueError):
            await fails()
        assert loop.time() == failed_at + SECONDS / 2, "the place was free at once"
        failing.exception()

    in_virtual_time(run)
