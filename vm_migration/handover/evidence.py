"""What an agent may rely on beside its own journal: a process's answer, a proof that it is gone, a peer's journal.

Nothing here is concluded from an absence. A process that does not answer is UNKNOWN, not gone. A journal that is
missing, empty or unreadable is UNREACHABLE, not "no such attempt": that answer (PASSED) counts only from a journal that
holds this machine at a higher epoch.
"""

from dataclasses import dataclass
from enum import StrEnum

from vm_migration.handover.record import Record
from vm_migration.handover.states import State


class Process(StrEnum):
    """A machine process, as somebody who asked at this moment found it."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


class Absence(StrEnum):
    """Why a side shows no state for the attempt."""

    UNREACHABLE = "unreachable"
    NOTHING = "nothing"
    """The journal holds the machine, not the attempt, and no higher epoch."""
    PASSED = "passed"
    """The journal holds the machine at a higher epoch, and not the attempt: it ended there without ownership."""
    ABOVE = "above"
    """The journal has left the attempt behind and has owned the machine at a higher epoch since."""


Sight = State | Absence


@dataclass(frozen=True, slots=True)
class ProcessAnswer:
    """A machine process's own answer, given at this moment."""

    instance: str
    controller: int
    """Number of the controller that is attached to it."""
    running: bool
    pause: int
    """The stop that it stands at, or the last one when it runs."""


@dataclass(frozen=True, slots=True)
class InstanceGone:
    """Proof that an instance (boot id, pid, start time, random id) no longer exists."""

    instance: str


@dataclass(frozen=True, slots=True)
class SideView:
    """One side of one attempt: its journal, and its process."""

    attempt: str
    sight: Sight
    process: Process = Process.UNKNOWN
    highest_epoch: int = 0
    pause: int = 0
    whole: bool = False
    held: bool = True
    """The attempt is the journal's last; a state that is not held is what became of it there."""


def unreachable(attempt: str, process: Process = Process.UNKNOWN) -> SideView:
    """The view of a side whose agent or journal does not answer."""
    return SideView(attempt, Absence.UNREACHABLE, process, held=False)


def view(record: Record, attempt: str, epoch: int, process: Process = Process.UNKNOWN) -> SideView:
    """How a journal's last record answers a question about one attempt, also one that it has left behind."""
    held = record.attempt == attempt
    return SideView(
        attempt=attempt,
        sight=record.state if held else _left_behind(record, epoch),
        process=process,
        highest_epoch=record.highest_epoch,
        pause=record.pause if held else 0,
        whole=held and record.whole,
        held=held,
    )


def _left_behind(record: Record, epoch: int) -> Sight:
    if record.owned_epoch > epoch:
        return Absence.ABOVE
    if record.owned_epoch == epoch:
        return State.ACTIVE
    if record.released_epoch == epoch:
        return State.RETIRED
    return Absence.PASSED if record.highest_epoch > epoch else Absence.NOTHING


def reported(
    attempt: str,
    epoch: int,
    *,
    sight: Sight | None,
    highest_epoch: int,
    pause: int,
    whole: bool,
    process: Process,
) -> SideView:
    """The view behind a peer agent's report of `view(...).sight`; None with `highest_epoch` 0 says: no journal."""
    if sight is None or isinstance(sight, Absence):
        absent = sight or (Absence.PASSED if highest_epoch > epoch else Absence.NOTHING)
        return SideView(
            attempt, absent if highest_epoch else Absence.UNREACHABLE, process, highest_epoch, pause, whole, held=False
        )
    held = sight is not State.ACTIVE or highest_epoch <= epoch
    return SideView(attempt, sight, process, highest_epoch, pause, whole, held)


def sight_of(text: str) -> Sight | None:
    """Read a sight from its text, None from the empty one; raises ValueError for any other text."""
    if not text:
        return None
    return State(text) if text in State.__members__ else Absence(text)
