"""A machine on its way to a destination that takes it in, both without a process of their own kind."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from source_agent.outgoing_attempt import OutgoingAttempt, StartOrder, Surroundings
from source_agent.progress import Phase
from source_agent.surroundings import BeforeHandoff
from source_agent.terms import Terms
from tests.fakes.fake_machine import FakeMachine, Held
from tests.source_agent.departures import TERMS, leaving
from vm_migration.handover.states import State
from vm_migration.machine.port import Stop
from vmm.memory.ram_block import RamBlock
from vmm.process.identity import boot_id

MANY_PAGES = 4096
"""More than what lies in the buffers of a stream that nobody reads."""


class SlowMachine(FakeMachine):
    """A machine that has memory, and is frozen while it is paused."""

    frozen_at_pause = False
    pausing: asyncio.Event

    async def ram(self) -> RamBlock:
        block = await super().ram()
        block.words[:] = 1
        return block

    async def pause(self, *, for_attempt: bool) -> Stop:
        if self.frozen_at_pause:
            self.silent = 1
            self.pausing.set()
            await asyncio.Event().wait()
        return await super().pause(for_attempt=for_attempt)


async def no_hook() -> None:
    pass


@contextmanager
def departing(folder: Path, pages: int = 1) -> Iterator[tuple[Held, SlowMachine]]:
    with leaving(folder, State.OUTGOING) as held:
        machine = SlowMachine(held.machine.process, pages=pages)
        machine.pausing = asyncio.Event()
        held.machine = held.custody.port = machine
        yield held, machine


@asynccontextmanager
async def running(
    held: Held, address: str, hook: BeforeHandoff = no_hook, terms: Terms = TERMS
) -> AsyncIterator[tuple[OutgoingAttempt, "asyncio.Task[None]"]]:
    attempt = OutgoingAttempt(held.custody, terms, Surroundings(None, hook, 1e9, boot_id()))
    if address:
        attempt.start(StartOrder(address, address, b"ticket"))
    task = asyncio.create_task(attempt.run())
    yield attempt, task
    await task


async def until(attempt: OutgoingAttempt, phase: Phase) -> None:
    while attempt.board.progress.phase is not phase:
        await attempt.board.next(10)
