"""One attempt as those see it who work on it: its journal, its terms, and the board on which it is shown."""

from dataclasses import replace
from typing import Final

from source_agent.destination_link import DestinationLink
from source_agent.progress import Phase, Progress, ProgressBoard
from source_agent.surroundings import Surroundings
from source_agent.terms import Terms
from vm_migration.api.v1 import types_pb2
from vm_migration.handover.custody import Custody
from vm_migration.handover.record import Record
from vm_migration.loop_clock import loop_ns


class Account:
    """Knows what the journal says of the attempt, also after the machine's next one has begun."""

    def __init__(self, custody: Custody, terms: Terms, around: Surroundings) -> None:
        self.custody: Final = custody
        self.around: Final = around
        self.board: Final = ProgressBoard(Progress())
        self.attempt: Final = custody.record.attempt or ""
        self.terms = terms
        self._record = custody.record
        self._started_ns: Final = loop_ns()

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
            channels=self.around.channels,
        )

    # what is shown

    @property
    def now(self) -> Progress:
        """What is shown now."""
        return self.board.progress

    def put(self, progress: Progress) -> None:
        """Show something else, of a record that may be another attempt's by the time it is read."""
        self._record = self.record
        self.board.show(progress)

    def enter(self, phase: Phase, reason: str) -> None:
        """Show a phase, and what it does or waits for."""
        self.put(replace(self.now, phase=phase, reason=reason))

    def waiting(self, reason: str) -> None:
        """Show what is waited for."""
        self.put(replace(self.now, reason=reason))

    def elapsed_ms(self) -> float:
        """Return how long this life of the agent has worked on it."""
        return (loop_ns() - self._started_ns) / 1e6
