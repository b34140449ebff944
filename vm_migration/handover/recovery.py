"""What follows for one attempt, from both journals and the liveness of both machine processes: a pure function.

The two views must be of one instant: read one side, the other, then the first again, and start over when its journal
has moved in between. Each agent acts on its own journal only, through departure, arrival and ownership, which check
every precondition once more; so a decision that has become old is refused, never wrong.

The rows are those of docs/protocol/handover.md. Where a row needs a process alive or gone and nobody knows which, the
answer is to ask. A READY image is discarded only on the source's durable end of the attempt. A pair of states that the
protocol cannot reach is answered by pausing both and paging a person, never by freeing anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from vm_migration.handover.evidence import Absence, Process, SideView, Sight
from vm_migration.handover.record import Record
from vm_migration.handover.states import State


class Action(StrEnum):
    """One step of a decision, in the order given; each is idempotent."""

    ASK = "ask"
    """Decide nothing now, keep every image, ask again."""
    ABORT_SOURCE = "abort-source"
    RESUME_SOURCE = "resume-source"
    """Bring the process to the run state owed, merge back what was not sent, tracking and throttling off."""
    RELEASE_SOURCE = "release-source"
    HAND_OFF = "hand-off"
    RECLAIM_SOURCE = "reclaim-source"
    LOSE_SOURCE = "lose-source"
    RETIRE_SOURCE = "retire-source"
    """Journal RETIRED, then free that instance."""
    PAUSE_SOURCE = "pause-source"
    FINISH_OR_GIVE_UP = "finish-or-give-up"
    """The destination answers READY when it holds the whole last delta, else it journals DISCARDED."""
    ACTIVATE_DESTINATION = "activate-destination"
    """Confirm or start again, then ACTIVE."""
    RESUME_DESTINATION = "resume-destination"
    DISCARD_DESTINATION = "discard-destination"
    LOSE_DESTINATION = "lose-destination"
    RETIRE_DESTINATION = "retire-destination"
    PAUSE_DESTINATION = "pause-destination"
    PAGE = "page"
    """Name both hosts to a person."""
    RECOVER = "recover"
    """Nobody can know whether the guest ran: `viaduct recover --fenced HOST --may-miss-writes`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, in order, and why; no action at all where nothing is left to do."""

    actions: tuple[Action, ...]
    reason: str

    @property
    def needs_person(self) -> bool:
        """Whether recovery cannot go on by itself."""
        return Action.PAGE in self.actions or Action.RECOVER in self.actions


def _do(reason: str, *actions: Action) -> Decision:
    return Decision(actions, reason)


_ASK = _do("A side does not answer, and nothing is concluded from that", Action.ASK)
_NOTHING = _do("Nothing is left to do")
_CANNOT_BE = _do("The journals contradict each other", Action.PAUSE_SOURCE, Action.PAUSE_DESTINATION, Action.PAGE)
_TAKEN_AND_RETIRED = _do("It was taken at its destination, and retired there for another", Action.RETIRE_SOURCE)
_OPERATOR = _do("The guest may have run there: only an operator can decide", Action.RECOVER)

_RAN = frozenset({State.ACTIVATING, State.ACTIVE, State.RETIRED})
"""A destination's states in which the guest may have run there."""
_IMAGE = frozenset({State.PREPARED, State.READY})
_ABOVE: frozenset[Sight] = frozenset({State.TAKEN, Absence.ABOVE})
_DESTINATION = _IMAGE | _RAN | {State.DISCARDED, State.LOST, State.TAKEN}


@dataclass(frozen=True, slots=True)
class _Case:
    source: SideView
    destination: SideView
    past_deadline: bool
    over_pause_bound: bool


def decide(
    source: SideView, destination: SideView, *, past_deadline: bool = False, over_pause_bound: bool = False
) -> Decision:
    """Decide what follows for one attempt.

    `past_deadline` says that the attempt's deadline is over, `over_pause_bound` that the stop has lasted longer than
    STOPPED journalled. Both only ever end an attempt before the point of no return.
    """
    case = _Case(source, destination, past_deadline, over_pause_bound)
    if isinstance(destination.sight, State) and destination.sight not in _DESTINATION:
        return _CANNOT_BE
    if _left_behind(source) and _left_behind(destination):
        return _NOTHING
    if _ABOVE & {source.sight, destination.sight}:
        return _taken(source, destination)
    rule = _RULES.get(source.sight)
    return _CANNOT_BE if rule is None else rule(case)


def _left_behind(side: SideView) -> bool:
    return side.sight in {Absence.PASSED, Absence.ABOVE} or (isinstance(side.sight, State) and not side.held)


def _discard_image(destination: SideView) -> tuple[Action, ...]:
    return (Action.DISCARD_DESTINATION,) if destination.sight in _IMAGE else ()


def _outgoing(case: _Case) -> Decision:
    source, destination = case.source, case.destination
    if destination.sight in _RAN:
        return _CANNOT_BE
    if source.process is Process.UNKNOWN:
        return _ASK
    if source.process is Process.GONE:
        return _do("The machine died at its source", Action.LOSE_SOURCE, *_discard_image(destination))
    if destination.sight is Absence.UNREACHABLE and not case.past_deadline:
        return _ASK
    return _do("The machine goes on at its source", Action.ABORT_SOURCE, *_discard_image(destination))


def _stopped(case: _Case) -> Decision:
    source, destination = case.source, case.destination
    if source.process is Process.GONE and destination.sight is State.RETIRED:
        return _TAKEN_AND_RETIRED
    if destination.sight in _RAN:
        return _CANNOT_BE
    ready = destination.sight is State.READY and destination.pause == source.pause
    if source.process is Process.UNKNOWN:
        return _ASK
    if source.process is Process.GONE:
        return _stopped_and_gone(destination, ready=ready)
    if ready and destination.process is Process.ALIVE and not case.over_pause_bound:
        return _do("The destination holds the whole machine", Action.RELEASE_SOURCE, Action.HAND_OFF)
    return _do(
        "No whole copy is ready in time",
        Action.ABORT_SOURCE,
        Action.RESUME_SOURCE,
        *_discard_image(destination),
    )


def _stopped_and_gone(destination: SideView, *, ready: bool) -> Decision:
    match destination.sight:
        case State.READY if destination.process is Process.GONE:
            return _do("Both images are gone", Action.LOSE_DESTINATION, Action.LOSE_SOURCE)
        case State.READY if not ready:
            return _CANNOT_BE
        case State.READY if destination.process is Process.ALIVE:
            return _do("The only whole copy is there", Action.RELEASE_SOURCE, Action.HAND_OFF)
        case State.PREPARED:
            return _do("Only the destination knows whether it holds everything", Action.FINISH_OR_GIVE_UP)
        case State.DISCARDED | State.LOST | Absence.PASSED:
            return _do("Nobody has the machine whole", Action.LOSE_SOURCE)
        case _:
            return _ASK


def _released(case: _Case) -> Decision:
    source, destination = case.source, case.destination
    same_pause = destination.pause == source.pause
    decision = _CANNOT_BE
    match destination.sight:
        case State.ACTIVE:
            decision = _do("The machine runs at its destination", Action.RETIRE_SOURCE)
        case State.ACTIVATING:
            decision = _activating(destination)
        case State.READY if destination.process is Process.GONE:
            decision = _after_lost(source, Action.LOSE_DESTINATION)
        case State.READY if same_pause:
            decision = _do("The destination has not taken it yet", Action.HAND_OFF)
        case State.LOST:
            decision = _after_lost(source)
        case State.RETIRED if source.process is Process.GONE:
            decision = _TAKEN_AND_RETIRED
        case Absence.UNREACHABLE | State.RETIRED:
            decision = _ASK
    return decision


def _activating(destination: SideView) -> Decision:
    if destination.process is Process.UNKNOWN:
        return _ASK
    if destination.process is Process.GONE:
        return _OPERATOR
    return _do("The destination may start it, and nobody else", Action.ACTIVATE_DESTINATION)


def _after_lost(source: SideView, *first: Action) -> Decision:
    """The destination never ran and never will; the source decides by its own process."""
    if source.process is Process.UNKNOWN:
        return _do("The destination lost its image; the source's process does not answer", *first, Action.ASK)
    if source.process is Process.GONE:
        return _do("Nobody has the machine whole", *first, Action.LOSE_SOURCE)
    return _do("The image at the source is the only one", *first, Action.RECLAIM_SOURCE, Action.RESUME_SOURCE)


def _retired(case: _Case) -> Decision:
    source, destination = case.source, case.destination
    # A RETIRED that has seen an epoch above the attempt's was the answer to a TAKEN: its holder owns the machine.
    taken_elsewhere = source.highest_epoch > destination.highest_epoch > 0
    match destination.sight:
        case State.ACTIVATING | State.ACTIVE if taken_elsewhere:
            return _do("Another host has taken the machine", Action.PAUSE_DESTINATION, Action.PAGE)
        case State.ACTIVE if source.held:
            return _do("The machine runs at its destination", Action.RETIRE_SOURCE)
        case State.ACTIVATING:
            return _activating(destination)
        case Absence.UNREACHABLE | State.RETIRED | State.ACTIVE:
            return _NOTHING
        case _:
            return _CANNOT_BE


def _kept(case: _Case) -> Decision:
    """ABORTED or RECLAIMED: the machine is the source's."""
    source, destination = case.source, case.destination
    if destination.sight in _RAN or (source.sight is State.RECLAIMED and destination.sight in _IMAGE):
        return _CANNOT_BE
    discard = _discard_image(destination)
    if source.process is Process.ALIVE:
        return _do("The machine is its source's", Action.RESUME_SOURCE, *discard)
    if source.process is Process.GONE:
        return _do("The machine died at its source", Action.LOSE_SOURCE, *discard)
    return _do("The source's process does not answer", *discard, Action.ASK)


def _ended(case: _Case) -> Decision:
    destination = case.destination
    if destination.sight in _RAN:
        return _CANNOT_BE
    if destination.sight in _IMAGE:
        return _do("The attempt has ended at its source", Action.DISCARD_DESTINATION)
    return _NOTHING


def _source_silent(case: _Case) -> Decision:
    destination = case.destination
    match destination.sight:
        case State.ACTIVE:
            return _do("The machine goes on at its destination")
        case State.ACTIVATING:
            return _activating(destination)
        case State.PREPARED if not destination.whole:
            return _do("It never held everything", Action.DISCARD_DESTINATION) if case.past_deadline else _ASK
        case State.PREPARED | State.READY if destination.process is Process.GONE:
            return _do("The image is gone; it never ran", Action.LOSE_DESTINATION)
        case _:
            return _ASK


def _taken(source: SideView, destination: SideView) -> Decision:
    """The holder of the higher TAKEN owns the machine, also when it has gone on since; other copies retire."""
    if source.sight in _ABOVE and destination.sight in _ABOVE:
        both_taken = source.sight is destination.sight is State.TAKEN
        if not both_taken or source.highest_epoch == destination.highest_epoch:
            return _CANNOT_BE
        at_source = source.highest_epoch > destination.highest_epoch
    else:
        at_source = source.sight in _ABOVE
    return _taken_at_source(source, destination) if at_source else _taken_at_destination(source, destination)


def _taken_at_destination(source: SideView, destination: SideView) -> Decision:
    resumes = destination.sight is State.TAKEN and destination.process is Process.ALIVE
    resume = (Action.RESUME_DESTINATION,) if resumes else ()
    match source.sight:
        case State.RECLAIMED if source.highest_epoch >= destination.highest_epoch:
            return _CANNOT_BE
        case State.RETIRED | State.LOST | Absence.UNREACHABLE | Absence.PASSED:
            retire: tuple[Action, ...] = ()
        case Absence.NOTHING:
            retire = (Action.PAUSE_SOURCE, Action.PAGE)
        case State.OUTGOING | State.STOPPED | State.RELEASED | State.ABORTED | State.RECLAIMED | State.TAKEN:
            retire = (Action.PAUSE_SOURCE, Action.RETIRE_SOURCE)
        case _:
            return _CANNOT_BE
    return _do("The destination's host has taken the machine", *retire, *resume)


def _taken_at_source(source: SideView, destination: SideView) -> Decision:
    resumes = source.sight is State.TAKEN and source.process is Process.ALIVE
    resume = (Action.RESUME_SOURCE,) if resumes else ()
    match destination.sight:
        case State.PREPARED | State.READY:
            retire: tuple[Action, ...] = (Action.DISCARD_DESTINATION,)
        case State.ACTIVATING | State.ACTIVE | State.TAKEN:
            retire = (Action.PAUSE_DESTINATION, Action.RETIRE_DESTINATION)
        case _:
            retire = ()
    return _do("The source's host has taken the machine", *retire, *resume)


def _unknown_to_source(case: _Case) -> Decision:
    """The source's journal holds the machine, and neither the attempt nor a higher epoch: it is not as it was."""
    return _CANNOT_BE if case.destination.sight in _RAN else _ASK


_RULES: dict[Sight, Callable[[_Case], Decision]] = {
    State.OUTGOING: _outgoing,
    State.STOPPED: _stopped,
    State.RELEASED: _released,
    State.RETIRED: _retired,
    State.ABORTED: _kept,
    State.RECLAIMED: _kept,
    State.LOST: _ended,
    Absence.PASSED: _ended,
    Absence.NOTHING: _unknown_to_source,
    Absence.UNREACHABLE: _source_silent,
}

_CLAIMS = frozenset({State.ACTIVATING, State.ACTIVE, State.RECLAIMED, State.TAKEN})


def outranked(record: Record, claim: State, epoch: int) -> bool:
    """Whether another host's durable claim makes this agent pause its process before it serves anything, and page.

    The claim's epoch is compared with the one that this host owns; an attempt's own burnt epoch does not count, and
    no image is ever freed on this ground.
    """
    return claim in _CLAIMS and epoch > record.owned_epoch
