"""What a fault in an update may come to, by docs/update.md, ADR 0025 and 0030: a pure function, as in `expected`.

COMPLETED is a machine that runs in the new process, or as the new program; STAYED one that runs where it was. Before
RELEASED the old process has the machine again, from RELEASED on the new one has it, as long as it lives.

A machine that waits in files (mode reboot) needs no process from STOPPED on, and has run nothing for as long as its
file lies there: whatever has ended by then is followed by another. That counts as RELEASED, also where a record names a
process as its own already.
"""

from collections.abc import Iterable
from enum import IntEnum

from tests.faults.expected import Ending, Moment
from tests.faults.rows import DRIVERS, Deed, Ordered, Row, Victim, When
from vm_migration.handover.states import State


class Stage(IntEnum):
    """Where an update stands by its one journal, in order."""

    HERE = 0
    """No attempt is in the journal yet."""
    OPEN = 1
    """The new process may have everything, and no record says so."""
    STOPPED = 2
    """The record names it."""
    RELEASED = 3
    THERE = 4
    """The machine is the new process's, or runs the new program."""
    OVER = 5
    """It has ended otherwise."""


_EITHER = frozenset({Ending.COMPLETED, Ending.STAYED})
_COMPLETED = frozenset({Ending.COMPLETED})
_STAYED = frozenset({Ending.STAYED})
_LOST = frozenset({Ending.LOST})
_DIED = frozenset({Ending.DIED})

_OLD_DEAD = {
    Stage.HERE: _DIED,
    Stage.OPEN: _LOST,
    Stage.STOPPED: _COMPLETED,
    Stage.RELEASED: _COMPLETED,
    Stage.THERE: _COMPLETED,
    Stage.OVER: _LOST | _DIED,
}
_NEW_DEAD = {
    Stage.HERE: _EITHER,
    Stage.OPEN: _STAYED,
    Stage.STOPPED: _STAYED,
    Stage.RELEASED: _STAYED,
    Stage.THERE: _LOST | _DIED,
    Stage.OVER: _STAYED,
}
_HOST_DEAD = {
    Stage.HERE: _DIED,
    Stage.OPEN: _LOST,
    Stage.STOPPED: _LOST,
    Stage.RELEASED: _LOST,
    Stage.THERE: _LOST | _DIED,
    Stage.OVER: _LOST | _DIED,
}
_DEAD = {
    Victim.SOURCE_VMM: _OLD_DEAD,
    Victim.DESTINATION_VMM: _NEW_DEAD,
    Victim.SOURCE_VFIO_HOST: _HOST_DEAD,
    Victim.DESTINATION_VFIO_HOST: _NEW_DEAD,
}
_OF_THE_OLD = (Victim.SOURCE_VMM, Victim.SOURCE_VFIO_HOST)
_HAS_EVERYTHING = (When.READY, When.RELEASING, When.RESUMING)


def stage_of(moment: Moment) -> Stage:
    """Return where an update stood at a moment."""
    if moment.succeeded:
        return Stage.RELEASED if moment.waits else Stage.THERE
    return _BY_STATE.get(moment.source, Stage.HERE)


_BY_STATE: dict[str, Stage] = {
    State.OUTGOING: Stage.OPEN,
    State.STOPPED: Stage.STOPPED,
    State.RELEASED: Stage.RELEASED,
    State.RECLAIMED: Stage.OVER,
    State.ABORTED: Stage.OVER,
    State.LOST: Stage.OVER,
}


def expected_of_update(row: Row, moments: Iterable[Moment]) -> frozenset[Ending]:
    """Return what may follow: the moments are those just before and just after the fault.

    At a random moment the attempt goes on between a look and a fault, so the next stage counts too.
    """
    stages = {stage_of(moment) for moment in moments}
    if not isinstance(row.when, When):
        stages |= {Stage(stage + 1) for stage in stages if stage < Stage.THERE}
    if row.victim is Victim.DESTINATION_VMM and row.ordered is not Ordered.REBOOT and Stage.RELEASED in stages:
        stages.add(Stage.THERE)  # its agent may write that it is there before it hears of its death
    found: frozenset[Ending] = frozenset()
    for stage in stages:
        found |= _after(row, stage)
    return found


def _after(row: Row, stage: Stage) -> frozenset[Ending]:
    if row.victim is Victim.DESTINATION_AGENT:
        return _COMPLETED  # it has no part in it
    if row.deed is Deed.KILL and row.victim in _DEAD:
        return _dead(row, stage)
    if stage is Stage.OVER:
        return _STAYED
    return _COMPLETED if stage >= Stage.RELEASED else _before_the_release(row, stage)


def _before_the_release(row: Row, stage: Stage) -> frozenset[Ending]:
    if stage is Stage.HERE:
        return _EITHER
    if row.victim in DRIVERS:
        return _COMPLETED  # its agent goes on alone
    if row.deed is Deed.KILL:
        return _STAYED  # the next life of the agent gives it back
    if row.victim is Victim.SOURCE_VMM and stage is Stage.STOPPED:
        return _COMPLETED  # it is silent while the other has everything, and is ended
    return _EITHER


def _dead(row: Row, stage: Stage) -> frozenset[Ending]:
    if row.ordered is Ordered.REBOOT:
        return _dead_at_reboot(row, stage)
    if row.ordered is Ordered.TRANSFER:
        # The agent may have heard that the new one has everything, and write it: the old one is needed no more.
        beyond = row.victim is Victim.SOURCE_VMM and stage is Stage.OPEN and row.when in _HAS_EVERYTHING
        return _DEAD[row.victim][stage] | (_COMPLETED if beyond else frozenset())
    if row.victim is Victim.DESTINATION_VMM:
        return _EITHER  # it rehearses, and may have said by then that all is well
    return _HOST_DEAD[stage]


def _dead_at_reboot(row: Row, stage: Stage) -> frozenset[Ending]:
    if row.victim not in _OF_THE_OLD:
        return _LOST | _DIED if stage is Stage.THERE else _COMPLETED
    # As of a transfer: its agent may have heard that it is left. A machine's process ends with its host's.
    beyond = stage is Stage.OPEN and row.when in _HAS_EVERYTHING
    return _OLD_DEAD[stage] | (_COMPLETED if beyond else frozenset())
