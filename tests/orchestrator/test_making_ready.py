"""Who is prepared at its destination now, and who waits until what can be sent at once is there."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.attempt import Attempt
from orchestrator.making_ready import HELD_SECONDS, Preparations, may_prepare
from orchestrator.queueing import Slots
from tests.orchestrator.test_queueing import waiting
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_time import in_virtual_time

TWO = Slots(outgoing=2, incoming=2)
SOURCES, DESTINATIONS = st.sampled_from("abc"), st.sampled_from("xyz")


def attempts_of(drawn: list[tuple[str, str, int]], first: int) -> list[Attempt]:
    return [waiting(first + at, source, to, priority) for at, (source, to, priority) in enumerate(drawn)]


ATTEMPTS = st.lists(st.tuples(SOURCES, DESTINATIONS, st.integers(0, 2)), max_size=12)


@given(wait=ATTEMPTS, prepared=ATTEMPTS, sending=st.sets(SOURCES), out=st.integers(1, 4), into=st.integers(1, 4))
def test_whoever_is_first_has_no_more_company_at_its_destination_than_can_be_sent(
    wait: list[tuple[str, str, int]], prepared: list[tuple[str, str, int]], sending: set[str], out: int, into: int
) -> None:
    attempts, before = attempts_of(wait, 100), attempts_of(prepared, 0)
    chosen = may_prepare(attempts, before, sending, Slots(outgoing=out, incoming=into))
    assert [one for one in attempts if one.source in sending] == sorted(
        (one for one in chosen if one.source in sending), key=lambda one: one.created_at
    )
    at = {host: [one for one in before if one.destination == host and one.source not in sending] for host in "xyz"}
    of = Counter(one.source for ones in at.values() for one in ones)
    for one in (one for one in chosen if one.source not in sending):
        company = at[one.destination]
        assert not company or (len(company) < into and of[one.source] < out)
        company.append(one)
        of[one.source] += 1
    left = [one for one in attempts if one not in chosen]
    assert all(at[one.destination] for one in left), "no destination is idle"
    assert all(len(at[one.destination]) >= into or of[one.source] >= out for one in left), "nor is any place"


@pytest.mark.parametrize(
    ("ways", "chosen"),
    [
        (["ax"] * 6, "01"),  # all go to one host
        (["ax", "ay", "ax", "ay", "ax", "ay"], "01"),  # two hosts have one of the first each
        (["ax", "ax", "ay", "ay", "ay", "ay"], "012"),  # y has nothing else to do
        (["ax", "ay", "az", "au", "av", "aw"], "012345"),  # nobody shares processors
        (["ax", "bx", "cx", "dx", "ex", "fx"], "01"),  # all come back to one host
        (["ax", "ax", "ax", "by"], "013"),  # another host's move is its own
    ],
)
def test_what_is_prepared_at_first_of_some_that_leave(ways: list[str], chosen: str) -> None:
    attempts = [waiting(number, *way) for number, way in enumerate(ways)]
    assert "".join(one.attempt for one in may_prepare(attempts, (), set(), TWO)) == chosen


class Preparing:
    """Attempts, each prepared until it is told to be ready."""

    def __init__(self) -> None:
        self.preparations = Preparations()
        self.preparations.hear(frozenset(), TWO)
        self.entered: list[str] = []
        self._ready: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _prepare(self, attempt: Attempt) -> None:
        with self.preparations.one(attempt) as may:
            await may.wait()
            self.entered.append(attempt.attempt)
            await self._ready[attempt.attempt].wait()

    async def begin(self, *attempts: Attempt) -> None:
        for one in attempts:
            self._ready[one.attempt] = asyncio.Event()
            self.tasks[one.attempt] = asyncio.create_task(self._prepare(one))
        await self.settled()

    async def ready(self, name: str) -> None:
        self._ready[name].set()
        await self.tasks[name]
        await self.settled()

    async def settled(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def given_up(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


@pytest.fixture
async def preparing() -> AsyncIterator[Preparing]:
    there = Preparing()
    yield there
    await there.given_up()


async def test_the_next_is_prepared_when_one_of_the_first_is_and_all_once_the_host_sends(preparing: Preparing) -> None:
    await preparing.begin(*(waiting(number, "a", "b") for number in range(6)))
    assert preparing.entered == ["0", "1"]
    await preparing.ready("1")
    assert preparing.entered == ["0", "1", "2"]
    preparing.preparations.hear({"a"}, TWO)
    await preparing.settled()
    assert preparing.entered == ["0", "1", "2", "3", "4", "5"]


async def test_what_is_prepared_beside_what_a_host_sends_holds_up_no_other_host_s_first(preparing: Preparing) -> None:
    await preparing.begin(*(waiting(number, "a", "b") for number in range(2)))
    preparing.preparations.hear({"a"}, TWO)
    await preparing.begin(waiting(2, "a", "b"), waiting(3, "c", "b"))
    assert preparing.entered == ["0", "1", "2", "3"]


def test_destinations_that_are_silent_hold_up_the_others_for_a_while_and_no_longer() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        there, begun = Preparing(), loop.time()
        await there.begin(*(waiting(number, "a", "b") for number in range(5)), waiting(5, "a", "c"))
        assert there.entered == ["0", "1", "5"], "who goes elsewhere waits for nobody"
        await asyncio.sleep(HELD_SECONDS - 0.5)  # virtual time
        assert there.entered == ["0", "1", "5"]
        await asyncio.sleep(1.0)
        assert there.entered == ["0", "1", "5", "2", "3"]
        await there.ready("0")
        assert there.entered == ["0", "1", "5", "2", "3"], "its place was given on once"
        await asyncio.sleep(HELD_SECONDS)
        assert there.entered == ["0", "1", "5", "2", "3", "4"]
        assert loop.time() == begun + 2 * HELD_SECONDS + 0.5
        await there.given_up()

    in_virtual_time(scenario)


async def test_one_that_is_given_up_leaves_its_place_whether_it_waits_or_is_prepared(preparing: Preparing) -> None:
    await preparing.begin(*(waiting(number, "a", "b") for number in range(5)))
    for name in ("2", "0"):
        preparing.tasks[name].cancel()
        await asyncio.wait({preparing.tasks[name]})
        await preparing.settled()
    assert preparing.entered == ["0", "1", "3"]
    await preparing.ready("1")
    assert preparing.entered == ["0", "1", "3", "4"]


async def test_one_that_is_given_up_in_the_moment_it_may_leaves_its_place(preparing: Preparing) -> None:
    await preparing.begin(*(waiting(number, "a", "b") for number in range(4)))
    preparing.tasks["0"].cancel()
    preparing.tasks["2"].cancel()
    await asyncio.wait({preparing.tasks["0"], preparing.tasks["2"]})
    await preparing.settled()
    assert preparing.entered == ["0", "1", "3"]
