"""What a peer's journal was seen at: who goes back is not believed, and an answer that was overtaken is only old."""
# ruff: noqa: N802 - methods are named as on the wire

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_agent.destination_link import DestinationLink
from source_agent.sequences import ROLLED_BACK, SeenSequence
from tests.fakes.fake_destination import FakeDestination, served
from tests.source_agent.departures import KEY, A
from vm_migration.api.v1 import destination_pb2
from vm_migration.api.v1.destination_pb2 import IncomingReport
from vm_migration.errors import Stale, Unreachable
from vm_migration.link.served import Context

MOMENTS = 30
QUESTIONS = st.lists(st.lists(st.integers(0, MOMENTS), min_size=3, max_size=3).map(sorted), max_size=8)
"""Of each: when it was asked, answered, and the answer heard."""
WRITES = st.lists(st.integers(0, MOMENTS), max_size=12)


@given(QUESTIONS, WRITES, st.lists(st.integers(0, MOMENTS), max_size=4))
def test_who_only_goes_on_never_looks_rolled_back_in_whichever_order_its_answers_come(
    questions: list[list[int]], writes: list[int], tells: list[int]
) -> None:
    seen = SeenSequence()
    since: dict[int, int] = {}
    answers: dict[int, int] = {}
    for now in range(MOMENTS + 1):
        number = 1 + sum(at <= now for at in writes)
        for which, (asked, answered, heard) in enumerate(questions):
            if asked == now:
                since[which] = seen.highest
            if answered == now:
                answers[which] = number
            if heard == now:
                newest = seen.note(answers[which], "host-b", since=since[which])
                assert newest is (answers[which] == seen.highest)
        if now in tells:
            assert seen.note(number, "host-b")


@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, 100))
def test_who_answers_with_less_than_had_been_seen_when_it_was_asked_has_gone_back(
    seen_then: int, answered: int, more: int
) -> None:
    seen = SeenSequence(seen_then)
    since = seen.highest
    seen.note(seen_then + more, "host-b")
    if answered < seen_then:
        with pytest.raises(Stale) as refused:
            seen.note(answered, "host-b", since=since)
        assert refused.value.code == ROLLED_BACK
    else:
        assert seen.note(answered, "host-b", since=since) is (answered >= seen_then + more)
    assert seen.highest >= seen_then + more


class Slow(FakeDestination):
    """Has its first answers overtaken: they are of record 11, and come when it has told of record 12."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()
        self.asked = asyncio.Event()

    async def _overtaken(self) -> IncomingReport:
        self.asked.set()
        await self.told.wait()
        return IncomingReport(sequence=11)

    async def DescribeIncoming(
        self, request: destination_pb2.DescribeIncomingRequest, context: Context
    ) -> IncomingReport:
        return IncomingReport(sequence=12) if self.told.is_set() else await self._overtaken()

    async def Discard(self, request: destination_pb2.DiscardRequest, context: Context) -> IncomingReport:
        return await self._overtaken()

    async def NoteRetired(self, request: destination_pb2.NoteRetiredRequest, context: Context) -> IncomingReport:
        return IncomingReport(sequence=12)


async def test_an_answer_that_was_overtaken_is_asked_for_once_more() -> None:
    slow = Slow()
    async with served(slow), slow.link(A) as link, asyncio.timeout(20), asyncio.TaskGroup() as group:
        describing = group.create_task(link.describe(destination_pb2.DescribeIncomingRequest(key=KEY)))
        await slow.asked.wait()
        await link.note_retired(destination_pb2.NoteRetiredRequest(key=KEY))
        slow.told.set()
        assert (await describing).sequence == 12


async def test_a_proof_that_was_taken_is_taken_however_late_that_is_heard() -> None:
    slow = Slow()
    async with served(slow), slow.link(A) as link, asyncio.timeout(20), asyncio.TaskGroup() as group:
        discarding = group.create_task(link.discard(destination_pb2.DiscardRequest(key=KEY)))
        await slow.asked.wait()
        await link.note_retired(destination_pb2.NoteRetiredRequest(key=KEY))
        slow.told.set()
        await discarding


class Busy(FakeDestination):
    """Writes a record while it answers, each time, and tells of it elsewhere before that."""

    def __init__(self) -> None:
        super().__init__()
        self.sequence = 10
        self.asked: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def DescribeIncoming(
        self, request: destination_pb2.DescribeIncomingRequest, context: Context
    ) -> IncomingReport:
        before, told = self.sequence, asyncio.Event()
        self.asked.put_nowait(told)
        await told.wait()
        return IncomingReport(sequence=before)

    async def NoteRetired(self, request: destination_pb2.NoteRetiredRequest, context: Context) -> IncomingReport:
        self.sequence += 1
        return IncomingReport(sequence=self.sequence)


async def test_who_is_overtaken_each_time_is_not_asked_for_ever() -> None:
    busy = Busy()

    async def write(link: DestinationLink) -> None:
        while True:
            told = await busy.asked.get()
            await link.note_retired(destination_pb2.NoteRetiredRequest(key=KEY))
            told.set()

    async with served(busy), busy.link(A) as link, asyncio.timeout(20), asyncio.TaskGroup() as group:
        writing = group.create_task(write(link))
        with pytest.raises(Unreachable, match="told of newer records"):
            await link.describe(destination_pb2.DescribeIncomingRequest(key=KEY))
        writing.cancel()
