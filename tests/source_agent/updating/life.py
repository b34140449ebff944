"""One life of an agent, of which every step outside itself is counted, and which ends or stands still at one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vm_migration.handover.journal import Journal
from vm_migration.handover.journals import Journals
from vm_migration.handover.memory_disk import MemoryDisk
from vm_migration.handover.record import Record


class Killed(BaseException):
    """The agent's process has ended: nothing that it would do next happens."""


@dataclass
class Life:
    """One life of the agent; `at` names the step at which something happens, counted from 1."""

    at: int = 0
    after: bool = False
    happens: Callable[[], None] | None = None
    """What happens there; None: this life ends."""
    steps: list[str] = field(default_factory=list)
    freezes: bool = False
    """It stands still at its step, where that is a request, and takes it when it is thawed."""
    over: bool = False
    thaw: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take a step, unless this life is over."""
        self._alive()
        self.steps.append(name)
        here = len(self.steps) == self.at
        if here and not self.after and not self.freezes:
            self._strike()
        yield
        if here and self.after:
            self._strike()

    @asynccontextmanager
    async def asked(self, name: str) -> AsyncIterator[None]:
        """Take a step at which this life may stand still, until it is thawed."""
        self._alive()
        if self.freezes and len(self.steps) + 1 == self.at:
            self.at = 0
            self.ended.set()
            await self.thaw.wait()
        with self.step(name):
            yield

    def _alive(self) -> None:
        if self.over:
            raise Killed

    def _strike(self) -> None:
        if self.happens is not None:
            self.happens()
            return
        self.end()
        raise Killed

    def end(self) -> None:
        """End this life; also from a thread."""
        self.over = True
        self.loop.call_soon_threadsafe(self.ended.set)


class _SteppingJournal(Journal):
    life: Life

    def append(self, record: Record) -> Record:
        with self.life.step(f"write {record.state}"):
            return super().append(record)


class SteppingJournals(Journals):
    """Journals on a disk in memory, each record of which is a step."""

    def __init__(self, disk: MemoryDisk, life: Life) -> None:
        super().__init__(Path("/journal"), disk)
        self._memory, self._life = disk, life

    def open(self, machine: str) -> Journal:
        with self._life.step("open journal"):
            journal = _SteppingJournal.open(self.folder, machine, disk=self._memory)
            journal.life = self._life
            return journal


async def let_all_end() -> None:
    """Cancel what an agent that is gone was doing."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
