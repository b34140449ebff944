"""What a source agent's gauges say of the attempts that are open; pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from source_agent.progress import ENDED, Phase, Progress, ProgressBoard
from source_agent.terms import Terms
from vm_migration.handover.record import Record
from vm_migration.telemetry import counts, distributions, gauges
from vm_migration.telemetry.gauges import Reading
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.specification import parse_specification

_UPDATING: Final = (Phase.BEGUN, Phase.STARTING, Phase.SWITCHING, Phase.RELEASING, Phase.RESUMING)
_ONLY_UPDATING: Final = frozenset({Phase.STARTING, Phase.SWITCHING, Phase.RESUMING})
_LEAVING: Final = tuple(phase for phase in Phase if phase not in ENDED | _ONLY_UPDATING)


class Departure(Protocol):
    """What is read of an attempt, which may be an update: source_agent.shown_attempt."""

    @property
    def record(self) -> Record:
        """The last record of the machine's journal that speaks of this attempt."""

    @property
    def terms(self) -> Terms:
        """Under what it runs, as tuned last."""

    @property
    def board(self) -> ProgressBoard:
        """Where it is shown."""

    @property
    def open(self) -> bool:
        """Whether the attempt has not come to an end."""


def departure_readings(attempts: Iterable[Departure]) -> Sequence[Reading]:
    """Return how many attempts are open, by phase, and how far each one is that leaves."""
    opened = [one for one in attempts if one.open]
    leaving = [one for one in opened if one.terms.update is None]
    phases = Counter(one.board.progress.phase for one in leaving)
    updating = Counter(one.board.progress.phase for one in opened if one.terms.update is not None)
    return (
        *(Reading(gauges.IN_PHASE, phases[phase], (phase.value,)) for phase in _LEAVING),
        *(Reading(gauges.UPDATES_IN_PHASE, updating[phase], (phase.value,)) for phase in _UPDATING),
        *(reading for one in leaving for reading in _of(one.record, one.board.progress, one.terms)),
    )


def note_end(progress: Progress, terms: Terms) -> None:
    """Count an attempt that has ended, a machine's move or its update."""
    stood = progress.downtime if progress.phase is Phase.COMPLETED else None
    if terms.update is not None:
        mode = terms.update.mode
        counts.UPDATES_ENDED.add(mode, progress.outcome.value)
        if stood is not None:
            distributions.UPDATE_DOWNTIME.add(stood.downtime_us / 1e6, mode)
        return
    counts.MIGRATIONS_ENDED.add(progress.outcome.value)
    distributions.DURATION.add(progress.total_ms / 1000, progress.outcome.value)
    if stood is not None:
        distributions.DOWNTIME.add(stood.downtime_us / 1e6)


def _of(record: Record, progress: Progress, terms: Terms) -> Iterator[Reading]:
    labels = (record.machine, record.attempt or "", record.peer)
    figures = {
        gauges.DATA_TOTAL: _ram_bytes(record),
        gauges.DATA_PROCESSED: progress.raw_bytes,
        gauges.DATA_TRANSFERRED: progress.wire_bytes,
        gauges.DATA_REMAINING: progress.remaining_bytes,
        gauges.DEVICE_REMAINING: progress.device_left_bytes,
        gauges.EXPECTED_DOWNTIME: progress.expected_downtime_ms / 1000,
        gauges.DOWNTIME_LIMIT: terms.downtime_limit_ms / 1000,
        gauges.PROGRESS: progress.percent / 100,
    }
    if progress.rounds.last is not None:
        last = progress.rounds.last.measured
        figures[gauges.DIRTY_RATE] = last.dirty_bytes_per_s
        figures[gauges.TRANSFER_RATE] = last.wire_bytes_per_s
        figures[gauges.THROTTLE] = last.throttle_percent / 100
    return (Reading(gauge, figure, labels) for gauge, figure in figures.items())


def _ram_bytes(record: Record) -> int:
    """Return the RAM that a journalled specification asks for; 0 where it says nothing that this version reads."""
    try:
        return parse_specification(record.specification.encode()).memory.size
    except InvalidDocument:
        return 0
