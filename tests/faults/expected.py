"""What a fault may come to, read from handover.md: a pure function of the fault and of what both journals say then.

Nothing here is taken from the code under test but the names of the journals' states.
"""

from collections.abc import Iterable
from enum import IntEnum, StrEnum

import msgspec

from tests.faults.rows import DRIVERS, PAIRED, Deed, Row, Victim, When
from vm_migration.handover.states import State


class Ending(StrEnum):
    """How a machine stands when everything has settled."""

    COMPLETED = "completed"
    """It runs at its destination, and the source has retired its copy; in the new process, or as the new program."""
    STAYED = "stayed"
    """It runs at its source; in the process that it had, and as the program that it was."""
    LOST = "lost"
    """Nobody has it whole, both journals say so, and both hosts are clean."""
    DIED = "died"
    """The process of its owner died while no attempt was open, as it may at any time."""
    UNRESOLVED = "unresolved"
    """ACTIVATING with its process gone: nobody can know whether the guest ran."""
    BROKEN = "broken"
    """None of these; never expected."""


class Stage(IntEnum):
    """Where an attempt stands by both journals, in order."""

    HERE = 0
    """No attempt is in the source's journal yet."""
    COPYING = 1
    STOPPED = 2
    WHOLE = 3
    """The destination holds the whole last delta, and has not said READY."""
    READY = 4
    RELEASED = 5
    ACTIVATING = 6
    ACTIVE = 7
    OVER = 8
    """It has ended without a handover."""


class Moment(msgspec.Struct, frozen=True):
    """What was written when a fault struck."""

    source: str
    """The last state in the source's journal that speaks of this attempt, empty where none does."""
    destination: str
    whole: bool
    started: bool
    """Whether the rounds had begun, so that the source agent finishes or aborts alone."""
    succeeded: bool = False
    """Of an update: whether the machine was the new process's by then, or ran the new program."""
    waits: bool = False
    """Of an update in mode reboot: whether the file lay there by which the machine waits."""

    @property
    def stage(self) -> Stage:
        if self.source in (State.ABORTED, State.RECLAIMED, State.LOST):
            return Stage.OVER
        if self.destination in _THERE:
            return _THERE[self.destination]
        if self.source == State.STOPPED and self.destination == State.READY:
            return Stage.READY
        if self.source == State.STOPPED and self.whole:
            return Stage.WHOLE
        return _HERE.get(self.source, Stage.HERE)


_THERE: dict[str, Stage] = {State.ACTIVE: Stage.ACTIVE, State.ACTIVATING: Stage.ACTIVATING}
_HERE: dict[str, Stage] = {
    State.OUTGOING: Stage.COPYING,
    State.STOPPED: Stage.STOPPED,
    State.RELEASED: Stage.RELEASED,
    State.RETIRED: Stage.RELEASED,
}

_EITHER = frozenset({Ending.COMPLETED, Ending.STAYED})
_COMPLETED = frozenset({Ending.COMPLETED})
_STAYED = frozenset({Ending.STAYED})

SOURCE_MACHINE_DEAD = {
    Stage.HERE: frozenset({Ending.DIED}),
    Stage.COPYING: frozenset({Ending.LOST}),
    Stage.STOPPED: frozenset({Ending.LOST, Ending.COMPLETED}),  # only the destination knows whether it has it all
    Stage.OVER: frozenset({Ending.LOST, Ending.DIED}),
}
DESTINATION_MACHINE_DEAD = {
    Stage.ACTIVATING: frozenset({Ending.UNRESOLVED, Ending.DIED}),  # DIED where ACTIVE was written after all
    Stage.ACTIVE: frozenset({Ending.DIED}),
}
_MACHINES_DEAD = {
    Victim.SOURCE_VMM: (SOURCE_MACHINE_DEAD, _COMPLETED),  # from the whole copy on, that copy is the machine
    Victim.SOURCE_VFIO_HOST: (SOURCE_MACHINE_DEAD, _COMPLETED),
    Victim.DESTINATION_VMM: (DESTINATION_MACHINE_DEAD, _STAYED),  # ABORTED, or RECLAIMED
    Victim.DESTINATION_VFIO_HOST: (DESTINATION_MACHINE_DEAD, _STAYED),
}


def expected(row: Row, moments: Iterable[Moment]) -> frozenset[Ending]:
    """Return what may follow where a machine moves: the moments are those just before and just after the fault.

    At a random moment the attempt goes on between a look and a fault, so the next stage counts too.
    """
    seen = list(moments)
    found: frozenset[Ending] = frozenset()
    started = any(moment.started for moment in seen)
    for stage in {moment.stage for moment in seen}:
        found |= _after(row, stage, started=started)
        if not isinstance(row.when, When) and stage < Stage.ACTIVE:
            found |= _after(row, Stage(stage + 1), started=started)
    return found


def _after(row: Row, stage: Stage, *, started: bool) -> frozenset[Ending]:
    if row.victim is Victim.BROKER:
        return _COMPLETED  # never on a migration's critical path
    if row.deed is Deed.KILL and row.victim in _MACHINES_DEAD:
        by_stage, otherwise = _MACHINES_DEAD[row.victim]
        return by_stage.get(stage, otherwise)
    if stage is Stage.OVER:
        return _STAYED
    if stage >= Stage.RELEASED:
        return _COMPLETED  # the way is forward, for ever
    return _before_the_release(row, stage) if started else _EITHER


def _before_the_release(row: Row, stage: Stage) -> frozenset[Ending]:
    if row.victim in (*DRIVERS, *PAIRED):
        return _COMPLETED  # the source agent goes on alone
    if row.deed is Deed.KILL and stage <= Stage.WHOLE:
        return _STAYED  # what a killed agent knew of the copy is gone: ABORTED
    return _EITHER


def outcomes(row: Row, ending: Ending) -> frozenset[str]:
    """Return what whoever drove the attempt may have been told; an empty text stands for an attempt without a row.

    Nobody cancels but where that is what is done. But what a command that was killed had not begun is cancelled by the
    next command.
    """
    if row.deed is Deed.CANCEL and ending is Ending.STAYED:
        return frozenset({"cancelled"})
    ended = {"failed", "refused", "", *(["cancelled"] if row.victim is Victim.CLI else [])}
    return {
        Ending.COMPLETED: frozenset({"completed"}),
        Ending.STAYED: frozenset(ended),
        Ending.LOST: frozenset({"lost"}),
        Ending.DIED: frozenset({"completed", "lost", *ended}),
        Ending.UNRESOLVED: frozenset({"unresolved", ""}),
        Ending.BROKEN: frozenset[str](),
    }[ending]
