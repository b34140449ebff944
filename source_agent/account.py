"""One attempt as those see it who work on it: its journal, its terms, and the board on which it is shown."""

from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Final, Protocol

from source_agent.destination_link import DestinationLink
from source_agent.doubts import Doubts
from source_agent.outcome import ended
from source_agent.progress import ENDED, Outcome, Phase, Progress, ProgressBoard
from source_agent.sequences import SeenSequence
from source_agent.surroundings import Surroundings
from source_agent.terms import Terms
from vm_migration.api.v1 import types_pb2
from vm_migration.errors import MigrationError, Stale
from vm_migration.handover.custody import Custody
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.loop_clock import loop_ns
from vm_migration.telemetry import logs
from vm_migration.telemetry.traces import Phases

_log: Final = logs.get(__name__)


class Keeper(Protocol):
    """Keeps the custodies of a host's machines: source_agent.holdings.Holdings."""

    def alone(self, machine: str) -> AbstractAsyncContextManager[None]:
        """Let nobody else act on a machine for the length of the context."""

    async def renewed(self, custody: Custody) -> Custody:
        """Return the custody that takes this one's place: the journal opened anew, the process attached to it."""


class Account:
    """Knows what the journal says of the attempt, also after the machine's next one has begun."""

    def __init__(
        self,
        custody: Custody,
        terms: Terms,
        around: Surroundings,
        keeper: Keeper | None = None,
        doubts: Doubts | None = None,
    ) -> None:
        self.custody = custody
        self.doubts: Final = Doubts() if doubts is None else doubts
        self.seen: Final = SeenSequence()
        """Where the destination's journal stood when it was heard last."""
        self.around: Final = around
        # Whoever watches takes a lower number for an older report: a later life of the agent must not begin below.
        first = Progress(sequence=custody.record.controller << 16, transport=terms.transport)
        self.board: Final = ProgressBoard(first)
        self.attempt: Final = custody.record.attempt or ""
        self.terms = terms
        self._keeper: Final = keeper
        self._record = custody.record
        self._started_ns: Final = loop_ns()
        self._phases: Final = Phases()

    @property
    def record(self) -> Record:
        """The last record of the machine's journal that speaks of this attempt."""
        if self.custody.record.attempt == self.attempt:
            self._record = self.custody.record
        return self._record

    def key(self) -> types_pb2.AttemptKey:
        """Return the attempt's key, as the journal has it."""
        record = self.record
        return types_pb2.AttemptKey(machine=record.machine, attempt=self.attempt, epoch=record.epoch, term=record.term)

    def link(self) -> DestinationLink:
        """Return a link to the destination that the terms name."""
        return DestinationLink(
            host=self.record.peer,
            control=self.terms.control_address,
            bulk=self.terms.bulk_address,
            tls=self.around.tls,
            attempt=self.attempt,
            transport=self.terms.transport,
            channels=self.around.channels,
            sequence=lambda: self.custody.record.sequence,
            seen=self.seen,
        )

    async def renew(self) -> None:
        """Open the journal anew, which somebody else has opened, or of whose last record nobody knows.

        Raises:
            Stale: It speaks of another attempt by now.
        """
        if self._keeper is None:
            raise Stale("journal-moved", f"The journal of machine {self.record.machine} is another's now")
        custody = await self._keeper.renewed(self.custody)
        if custody.record.attempt != self.attempt:
            raise Stale("attempt-over", f"Machine {custody.record.machine} has gone on without attempt {self.attempt}")
        self.custody = custody

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Keep others from doing anything to the machine for the length of the context."""
        return nullcontext() if self._keeper is None else self._keeper.alone(self.record.machine)

    # what is shown

    @property
    def now(self) -> Progress:
        """What is shown now."""
        return self.board.progress

    def put(self, progress: Progress) -> None:
        """Show something else, of a record that may be another attempt's by the time it is read."""
        self._record, before = self.record, self.now.phase
        self.board.show(progress)
        if progress.phase is not before:
            _log.info("attempt goes on", phase=progress.phase.value, outcome=progress.outcome.value)
            self._trace(progress.phase)

    def _trace(self, phase: Phase) -> None:
        if phase in ENDED:
            self._phases.leave()
        else:
            self._phases.enter(phase.value, {"machine": self._record.machine, "attempt": self.attempt})

    def enter(self, phase: Phase, reason: str) -> None:
        """Show a phase, and what it does or waits for."""
        self.put(replace(self.now, phase=phase, reason=reason))

    def waiting(self, reason: str) -> None:
        """Show what is waited for."""
        self.put(replace(self.now, reason=reason))

    def show_completed(self) -> None:
        """Show that the machine is its destination's."""
        self.put(replace(self.now, phase=Phase.COMPLETED, outcome=Outcome.COMPLETED, reason=""))

    def show_end(self, failure: MigrationError, state: State) -> None:
        """Show another end: what it failed with, and the journal's state."""
        self.put(replace(ended(self.now, failure, state), total_ms=self.elapsed_ms()))

    def elapsed_ms(self) -> float:
        """Return how long this life of the agent has worked on it."""
        return (loop_ns() - self._started_ns) / 1e6
