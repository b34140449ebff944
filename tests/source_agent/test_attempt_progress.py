"""What is told of an attempt: each phase numbered, no percentage that runs backwards."""

import asyncio
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from source_agent.progress import CANCELLABLE, ENDED, Phase, Progress, ProgressBoard


def test_a_new_phase_takes_the_next_number_and_begins_at_nought() -> None:
    board = ProgressBoard(Progress())
    board.show(replace(board.progress, percent=40))
    board.show(replace(board.progress, phase=Phase.PRE_COPY, percent=40))
    assert (board.progress.sequence, board.progress.percent) == (1, 0)


@given(st.lists(st.tuples(st.sampled_from([Phase.BEGUN, Phase.PRE_COPY, Phase.STOPPING]), st.integers(0, 100))))
def test_numbers_and_percentages_never_run_backwards(steps: list[tuple[Phase, int]]) -> None:
    board = ProgressBoard(Progress())
    for phase, percent in steps:
        before = board.progress
        board.show(replace(before, phase=phase, percent=percent))
        after = board.progress
        if phase is before.phase:
            assert (after.sequence, after.percent) == (before.sequence, max(before.percent, percent))
        else:
            assert (after.sequence, after.percent) == (before.sequence + 1, 0)


async def test_whoever_waits_hears_the_next_change_and_nobody_waits_for_ever() -> None:
    board = ProgressBoard(Progress())
    await board.next(0.001)
    waiting = [asyncio.create_task(board.next(60)) for _ in range(2)]
    await asyncio.sleep(0)
    board.show(replace(board.progress, reason="changed"))
    await asyncio.gather(*waiting)


def test_what_can_be_cancelled_has_not_ended_and_is_before_the_release() -> None:
    assert not CANCELLABLE & ENDED
    assert not CANCELLABLE & {Phase.RELEASING, Phase.HANDING_OVER}


async def test_rounds_wait_until_they_are_worth_a_report_and_a_phase_does_not() -> None:
    board = ProgressBoard(Progress(phase=Phase.PRE_COPY))
    told = board.progress
    waiting = asyncio.create_task(board.news(told, 3600, 3600))
    for wire_bytes in range(1, 100):
        board.show(replace(board.progress, wire_bytes=wire_bytes))
        await asyncio.sleep(0)
    assert not waiting.done()
    board.show(replace(board.progress, phase=Phase.STOPPING))
    await waiting
    assert board.progress.phase is Phase.STOPPING


async def test_what_came_meanwhile_is_told_when_its_time_has_come() -> None:
    board = ProgressBoard(Progress(phase=Phase.PRE_COPY))
    told = board.progress
    await board.news(told, 0, 0)  # nothing came
    board.show(replace(told, wire_bytes=1))
    await board.news(told, 3600, 0)


async def test_whatever_follows_an_end_is_told_at_once() -> None:
    board = ProgressBoard(Progress(phase=Phase.COMPLETED))
    told = board.progress
    waiting = asyncio.create_task(board.news(told, 3600, 3600))
    await asyncio.sleep(0)
    board.show(replace(told, total_ms=5.0))
    await waiting
