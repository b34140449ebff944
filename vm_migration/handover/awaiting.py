"""What a destination does by itself about a machine that is arriving, or has arrived: a pure function.

::

    nothing heard of an arrival  --ask its source-->  its end: discard    nothing, for too long: give up, unless whole
    ACTIVE, former source open   --ask it---------->  RETIRED: note it    TAKEN above: retire this copy

Its own record and process, and what the source's journal says. The rows are those of docs/protocol/handover.md, as
`recovery.decide` has them; but a destination ends no attempt that its source says is open, and starts or frees nothing
that a row leaves to its source.
"""

from dataclasses import dataclass
from enum import StrEnum

from vm_migration.handover.evidence import Absence, Process, SideView
from vm_migration.handover.recovery import Action, decide
from vm_migration.handover.states import State


class Step(StrEnum):
    """What follows at the destination."""

    REST = "rest"
    """Nothing is left to do here."""
    WAIT = "wait"
    """For the source, as the reason says."""
    GIVE_UP = "give-up"
    """DISCARDED without a proof: it never held everything."""
    DISCARD = "discard"
    LOSE = "lose"
    ACTIVATE = "activate"
    RETIRE = "retire"
    NOTE_RETIRED = "note-retired"
    CONTRADICTION = "contradiction"
    """Pause, page a person, free nothing."""
    OPERATOR = "operator"
    """It may have run here, and its process is gone: only `viaduct recover --fenced` decides."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """A step, and why."""

    step: Step
    reason: str


_IMAGE = frozenset({State.PREPARED, State.READY})
_WATCHED = _IMAGE | {State.ACTIVATING, State.ACTIVE}
_UNDER_WAY = frozenset({State.OUTGOING, State.STOPPED})
_SAYS_NOTHING = frozenset({Absence.UNREACHABLE, Absence.NOTHING})


def awaited(source: SideView, here: SideView, *, out_of_patience: bool) -> Awaited:
    """Decide what a destination does; `out_of_patience`: nothing was heard of the attempt for as long as it waits."""
    if here.sight not in _WATCHED:
        return Awaited(Step.REST, f"The journal says {here.sight}")
    decision = decide(source, here, past_deadline=out_of_patience)
    if Action.RETIRE_DESTINATION in decision.actions:
        return Awaited(Step.RETIRE, decision.reason)
    if Action.PAGE in decision.actions:
        return Awaited(Step.CONTRADICTION, f"{decision.reason}: {here.sight} here, {source.sight} at its source")
    if here.sight is State.ACTIVE:
        return _owned(source)
    if here.sight is State.ACTIVATING:
        return _activating(here)
    return _image(source, here, out_of_patience=out_of_patience)


def restarted(source: SideView, here: SideView) -> Awaited:
    """Decide what a destination does after a restart, which no arrival that is not whole outlives."""
    following = awaited(source, here, out_of_patience=True)
    if here.sight is State.PREPARED and not here.whole and following.step is Step.WAIT:
        return Awaited(Step.GIVE_UP, "The destination agent was restarted during the copy")
    return following


def _owned(source: SideView) -> Awaited:
    if source.sight is State.RETIRED:
        return Awaited(Step.NOTE_RETIRED, "The former source has retired its copy")
    return Awaited(Step.WAIT, f"The former source has not retired its copy: it is {source.sight}")


def _activating(here: SideView) -> Awaited:
    match here.process:
        case Process.ALIVE:
            return Awaited(Step.ACTIVATE, "It may be started here, and nowhere else")
        case Process.GONE:
            return Awaited(Step.OPERATOR, "Its process ended while it was being activated: it may have run")
        case _:
            return Awaited(Step.WAIT, "Its process does not answer")


def _image(source: SideView, here: SideView, *, out_of_patience: bool) -> Awaited:
    whole = here.whole or here.sight is State.READY
    if here.process is Process.GONE:
        return Awaited(Step.LOSE if whole else Step.GIVE_UP, "Its process has ended; it never ran")
    if source.sight in _UNDER_WAY:
        return Awaited(Step.WAIT, f"The attempt is under way at its source: {source.sight}")
    if not whole and source.sight in _SAYS_NOTHING:
        if out_of_patience:
            return Awaited(Step.GIVE_UP, f"Nothing was heard of it, and its source is {source.sight}")
        return Awaited(Step.WAIT, f"Nothing is heard of it, and its source is {source.sight}")
    if source.sight in {State.RELEASED, *_SAYS_NOTHING}:
        return Awaited(Step.WAIT, f"It waits for the secret; its source is {source.sight}")
    return Awaited(Step.DISCARD, f"The attempt has ended at its source: {source.sight}")
