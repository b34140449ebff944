"""Who sends of those that are prepared, and whose place is whose next."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from orchestrator.attempt import Attempt, Outcome, Phase
from orchestrator.queueing import Slots
from orchestrator.sending import Senders
from tests.orchestrator.test_queueing import waiting

ONE = Slots(outgoing=1, incoming=1)
TWO = Slots(outgoing=2, incoming=2)


def at(number: int, phase: Phase, priority: int = 0) -> Attempt:
    return replace(waiting(number, "a", "b", priority), phase=phase)


@dataclass
class Waiting:
    """Prepared attempts whose turn is waited for."""

    looks: int = 0
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.senders = Senders(self._look)

    def _look(self) -> None:
        self.looks += 1

    async def begin(self, *attempts: Attempt) -> None:
        for one in attempts:
            self.tasks[one.attempt] = asyncio.create_task(self.senders.turn(one))
        await asyncio.sleep(0)

    async def let(self, running: list[Attempt], slots: Slots) -> set[str]:
        """Have those send that may, and return all whose turn has come."""
        self.senders.let(running, slots, {})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return {name for name, task in self.tasks.items() if task.done()}


@pytest.fixture
async def prepared() -> AsyncIterator[Waiting]:
    there = Waiting()
    yield there
    for task in there.tasks.values():
        task.cancel()
    await asyncio.gather(*there.tasks.values(), return_exceptions=True)


async def test_who_may_start_is_decided_anew_when_all_of_an_attempt_is_there_and_not_with_each_of_its_reports(
    prepared: Waiting,
) -> None:
    for phase in (Phase.PRE_COPY, Phase.STOPPING):
        prepared.senders.hear(at(1, phase))
    assert prepared.looks == 0
    for phase in (Phase.VERIFYING, Phase.VERIFYING, Phase.RELEASING, Phase.HANDING_OVER, Phase.HANDING_OVER):
        prepared.senders.hear(at(1, phase))
    assert prepared.looks == 1
    await prepared.let([at(1, Phase.HANDING_OVER)], ONE)
    prepared.senders.hear(at(1, Phase.HANDING_OVER))
    assert prepared.looks == 1
    prepared.senders.hear(at(2, Phase.RELEASING))
    assert prepared.looks == 2


async def test_an_attempt_that_was_left_unresolved_sends_nothing_to_be_heard_of(prepared: Waiting) -> None:
    prepared.senders.hear(replace(at(1, Phase.RELEASING), outcome=Outcome.UNRESOLVED))
    assert prepared.looks == 0


async def test_as_many_are_sent_as_have_a_place_and_whoever_begins_to_wait_is_looked_at(prepared: Waiting) -> None:
    three = [at(number, Phase.PREPARING) for number in range(3)]
    await prepared.begin(*three)
    assert prepared.looks == 3
    assert await prepared.let(three, TWO) == {"0", "1"}
    assert await prepared.let(three, TWO) == {"0", "1"}  # they are yet to say that they send
    assert [prepared.senders.waits(one) for one in three] == [False, False, True]


@pytest.mark.parametrize("phase", [Phase.BEGUN, Phase.PRE_COPY, Phase.STOPPING])
async def test_one_that_sends_has_its_place_whoever_let_it(prepared: Waiting, phase: Phase) -> None:
    ready, taken_over = at(0, Phase.PREPARING), at(7, phase)
    await prepared.begin(ready)
    assert await prepared.let([ready, taken_over], ONE) == set()
    assert await prepared.let([ready], ONE) == {"0"}


@pytest.mark.parametrize("phase", [Phase.VERIFYING, Phase.RELEASING, Phase.HANDING_OVER])
async def test_the_place_of_one_that_is_there_is_another_s(prepared: Waiting, phase: Phase) -> None:
    first, second = at(0, Phase.PREPARING), at(1, Phase.PREPARING)
    await prepared.begin(first, second)
    assert await prepared.let([first, second], ONE) == {"0"}
    assert await prepared.let([replace(first, phase=Phase.PRE_COPY), second], ONE) == {"0"}
    assert await prepared.let([replace(first, phase=phase), second], ONE) == {"0", "1"}


async def test_one_that_is_not_prepared_yet_keeps_nobody_out_and_the_more_urgent_goes_first(prepared: Waiting) -> None:
    slow, usual, urgent = at(0, Phase.PREPARING), at(1, Phase.PREPARING), at(2, Phase.PREPARING, priority=3)
    await prepared.begin(usual, urgent)
    assert await prepared.let([slow, usual, urgent], ONE) == {"2"}


async def test_one_that_is_given_up_waits_no_more(prepared: Waiting) -> None:
    first, second = at(0, Phase.PREPARING), at(1, Phase.PREPARING)
    await prepared.begin(first, second)
    prepared.tasks["0"].cancel()
    await asyncio.wait({prepared.tasks["0"]})
    assert await prepared.let([second], ONE) == {"0", "1"}
    assert not prepared.senders.waits(first)
