"""What drives: the queue of attempts, and the evacuations over it, with one book of slots."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from orchestrator.evacuation.service import Evacuations
from orchestrator.service import AttemptQueue
from orchestrator.slot_book import SlotBook
from orchestrator.surroundings import Surroundings


@dataclass(frozen=True, slots=True)
class Driving:
    """Both, at work."""

    queue: AttemptQueue
    evacuations: Evacuations


@contextlib.asynccontextmanager
async def driving(around: Surroundings, *, sole: bool = False, adopts: bool = True) -> AsyncIterator[Driving]:
    """Drive while the context is entered; `sole` and `adopts` are as AttemptQueue's."""
    slots = SlotBook(around.slots)
    async with (
        AttemptQueue(around, sole=sole, slots=slots, adopts=adopts) as queue,
        Evacuations(around, queue, slots, sole=sole, adopts=adopts) as evacuations,
    ):
        yield Driving(queue, evacuations)
