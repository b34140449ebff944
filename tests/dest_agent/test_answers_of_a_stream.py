"""What a bulk stream is answered: what it asks for, and every second how far it has come, whatever it waits for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

import pytest

from dest_agent import answering
from dest_agent.answering import answered
from vm_migration.errors import AttemptFailed
from vm_migration.transfer.frames import Ack, AckKind, Place

ATTEMPT = UUID(int=1)


class Arrival:
    """Answers each second message, and is stuck in the one that says so."""

    def __init__(self) -> None:
        self.taken = 0
        self.stuck = asyncio.Event()
        self.cancelled = False

    async def take(self, message: bytes | memoryview, stream: int) -> Ack | None:
        if message == b"stuck":
            self.stuck.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        if message == b"bad":
            raise AttemptFailed("bad-frame", "Destination refused a frame")
        self.taken += 1
        return None if self.taken % 2 else Ack(Place(ATTEMPT, 0, stream, self.taken - 1), AckKind.HEARTBEAT, 0)

    def progress(self, stream: int) -> Ack:
        return Ack(Place(ATTEMPT, 0, stream, self.taken), AckKind.PROGRESS, 0)


async def messages(*sent: bytes) -> AsyncIterator[bytes]:
    for message in sent:
        yield message


async def test_who_does_not_ask_is_told_nothing_of_its_own_accord() -> None:
    answers = [ack async for ack in answered(Arrival(), messages(*[b"frame"] * 4), 2, tells=False)]
    assert [(ack.kind, ack.place.stream, ack.place.sequence) for ack in answers] == [
        (AckKind.HEARTBEAT, 2, 1),
        (AckKind.HEARTBEAT, 2, 3),
    ]


async def test_who_asks_is_told_at_once_that_he_was_let_in() -> None:
    answers = [ack async for ack in answered(Arrival(), messages(b"frame", b"frame"), 0, tells=True)]
    assert [(ack.kind, ack.place.sequence) for ack in answers] == [(AckKind.PROGRESS, 0), (AckKind.HEARTBEAT, 1)]


async def test_progress_is_told_while_a_frame_is_stuck_and_nothing_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answering, "PROGRESS_EVERY", 0.01)
    arrival, told = Arrival(), 0
    async with aclosing(answered(arrival, messages(b"frame", b"stuck"), 0, tells=True)) as answers:
        async for ack in answers:
            assert ack.kind is AckKind.PROGRESS
            told += arrival.stuck.is_set()
            if told == 3:
                assert ack.place.sequence == 1
                break
    assert arrival.cancelled


async def test_a_frame_that_is_refused_ends_the_stream() -> None:
    with pytest.raises(AttemptFailed):
        [ack async for ack in answered(Arrival(), messages(b"frame", b"bad"), 0, tells=True)]
