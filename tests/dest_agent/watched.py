"""An arrival whose source is a script: what it says each time, or that it is silent."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest

from dest_agent.agent import DestAgent
from dest_agent.sources import ASK_SECONDS, Sources, Word
from tests.dest_agent.arrivals import A
from tests.fakes.fake_machine import MACHINE, Held
from vm_migration.handover.evidence import Process, SideView, unreachable, view
from vm_migration.handover.journal import read_last
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.handover.yielding import gives_way
from vm_migration.machine import software_hypervisor

SILENT = Word(unreachable(A), silence="nobody answers")


def source_record(state: State, **facts: object) -> Record:
    """Return what a source's journal says of the attempt."""
    record = Record(
        machine=MACHINE, state=state, sequence=9, highest_epoch=2, owned_epoch=1, attempt=A, epoch=2, term=1, pause=1
    )
    return msgspec.structs.replace(record, **facts)


def says(state: State, process: Process = Process.ALIVE, **facts: object) -> Word:
    record = source_record(state, **facts)
    return Word(view(record, A, 2, process), record.sequence)


class ScriptedSources(Sources):
    """Says one thing until told otherwise, and counts how often it was asked."""

    def __init__(self, word: Word = SILENT) -> None:
        super().__init__()
        self.word = word
        self.asked = 0
        self.others: list[tuple[Record, Process]] = []

    async def ask(self, record: Record, deadline: float = ASK_SECONDS) -> Word:
        self.asked += 1
        return self.word

    async def owner(self, record: Record, process: Process, deadline: float = ASK_SECONDS) -> SideView | None:
        owners = (gives_way(record, process, *other) for other in self.others)
        return next(filter(None, owners), None)


class Watched:
    """A host whose agent may be started several times."""

    def __init__(self, machine: Held, sources: ScriptedSources) -> None:
        self.machine = machine
        self.sources = sources
        self.active: list[str] = []

    @property
    def last(self) -> Record:
        return read_last(self.machine.folder / "journal", MACHINE)

    @property
    def freed(self) -> bool:
        return not self.machine.directory.path.exists()

    def new_agent(self, patience: float = 120.0) -> DestAgent:
        async def after_active(record: Record) -> None:
            self.active.append(record.machine)

        return DestAgent(
            host="host-b",
            journals=self.machine.journals,
            hypervisor=self.machine.hypervisor,
            memory_budget=1 << 30,
            after_active=after_active,
            sources=self.sources,
            arrival_patience=patience,
        )

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[DestAgent]:
        """Be an agent that was restarted."""
        agent = self.new_agent()
        await agent.recover()
        try:
            yield agent
        finally:
            await agent.stop()


@contextmanager
def watched(machine: Held, monkeypatch: pytest.MonkeyPatch, word: Word = SILENT) -> Iterator[Watched]:
    monkeypatch.setattr(software_hypervisor, "SoftwareMachine", lambda _path, **_: machine.machine)
    yield Watched(machine, ScriptedSources(word))


def journal_file(folder: Path) -> Path:
    return folder / "journal" / MACHINE
