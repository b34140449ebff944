"""The attempts that the journals speak of, each with both of its sides, and what follows for it: pure.

An attempt's two hosts are read from either journal: a record names the attempt's other host, and its state says which
side its own host is of.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.diagnosis.views import Copy, MachineView
from vm_migration.handover.evidence import Process, SideView, unreachable
from vm_migration.handover.record import Record
from vm_migration.handover.recovery import Decision, decide
from vm_migration.handover.states import ARRIVING, LEAVING, State
from vm_migration.handover.succession import successor_view


@dataclass(frozen=True, slots=True)
class Pair:
    """One attempt as its two journals tell it; `term` is the highest that either has seen."""

    machine: str
    attempt: str
    epoch: int
    term: int
    source_host: str
    destination_host: str
    source: SideView
    destination: SideView

    @property
    def decision(self) -> Decision:
        """What follows, as far as the two sides decide it; no deadline is taken to be over."""
        return decide(self.source, self.destination)

    @property
    def update(self) -> bool:
        """Whether the machine goes on in another process of its host."""
        return self.source_host == self.destination_host

    @property
    def leaving(self) -> bool:
        """Whether it is open at its source."""
        return self.source.held and self.source.sight in LEAVING

    @property
    def arriving(self) -> bool:
        """Whether it is open at its destination."""
        return self.destination.held and self.destination.sight in ARRIVING

    @property
    def open(self) -> bool:
        """Whether either side still waits for its end."""
        return self.leaving or self.arriving


def is_source(record: Record) -> bool:
    """Tell whether a record's host is the source of the attempt that it speaks of."""
    if record.state in LEAVING or record.state in (State.ABORTED, State.RECLAIMED):
        return True
    if record.state in ARRIVING or record.state in (State.ACTIVE, State.DISCARDED):
        return False
    if record.released_epoch == record.epoch:
        return True
    # A destination owes its owner's question after the former source until it owned the machine for a while.
    return record.owned_epoch < record.epoch and record.former_retired


def pairs(machine: MachineView) -> tuple[Pair, ...]:
    """Return every attempt that is the last one in some journal of the machine, the newest first."""
    found = {pair.attempt: pair for pair in _pairs(machine)}
    return tuple(sorted(found.values(), key=lambda pair: -pair.epoch))


def _pairs(machine: MachineView) -> Iterator[Pair]:
    for host, record in machine.records.items():
        if record.attempt is None:
            continue
        if record.peer == host:
            yield _update(machine, host, record)
            continue
        source, destination = (host, record.peer) if is_source(record) else (record.peer, host)
        ends = [machine.copies.get(source), machine.copies.get(destination)]
        held = [one.record for one in ends if one is not None and one.record is not None]
        terms = [one.term for one in held if one.attempt == record.attempt]
        yield Pair(
            machine=machine.machine,
            attempt=record.attempt,
            epoch=record.epoch,
            term=max(terms, default=record.term),
            source_host=source,
            destination_host=destination,
            source=_side(ends[0], record),
            destination=_side(ends[1], record),
        )


def _update(machine: MachineView, host: str, record: Record) -> Pair:
    """Return an update, both sides of which are of one journal; of the new process nothing is known from outside."""
    attempt, source = record.attempt or "", machine.copies[host].side(record.attempt or "", record.epoch)
    there = successor_view(record, Process.UNKNOWN) if record.state in LEAVING else SideView(attempt, State.DISCARDED)
    return Pair(machine.machine, attempt, record.epoch, record.term, host, host, source, there)


def _side(copy: Copy | None, record: Record) -> SideView:
    attempt = record.attempt or ""
    return unreachable(attempt) if copy is None else copy.side(attempt, record.epoch)
