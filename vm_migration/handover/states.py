"""The states of a machine's journal at one host, and the moves between them.

::

    source       OWNER -- Begin --> OUTGOING -- pause --> STOPPED -- READY --> RELEASED -- ACTIVE --> RETIRED
                                        |                    |                     |
                                        '------> ABORTED <---'                     '-- LOST(dest) --> RECLAIMED
    destination  nothing -- Prepare --> PREPARED -- loaded, verified --> READY -- Handoff --> ACTIVATING --> ACTIVE
                                            |                              |
                     DISCARDED, final <-----+------- proof of ABORTED -----+--- image gone ---> LOST
    either       LOST: nobody has it whole          TAKEN: an operator's recovery, at an epoch above any seen

A host whose journal stands at OWNER, ACTIVE, ABORTED, RECLAIMED or TAKEN owns the machine. The promise of the table is
that an attempt which may have run at a destination never is that side's LOST: LOST of an attempt says "never ran, never
will", and a source reclaims on it. The LOST that follows ACTIVATING is an operator's word that no image is left
anywhere; it names no attempt, and stands above every epoch as TAKEN does. DESTROYED is the tombstone of `machine
destroy`.
"""

from enum import StrEnum

from vm_migration.errors import Refused


class State(StrEnum):
    """What a record says of the machine at the host that wrote it."""

    OWNER = "OWNER"
    OUTGOING = "OUTGOING"
    STOPPED = "STOPPED"
    RELEASED = "RELEASED"
    RETIRED = "RETIRED"
    ABORTED = "ABORTED"
    RECLAIMED = "RECLAIMED"
    PREPARED = "PREPARED"
    READY = "READY"
    ACTIVATING = "ACTIVATING"
    ACTIVE = "ACTIVE"
    DISCARDED = "DISCARDED"
    LOST = "LOST"
    TAKEN = "TAKEN"
    DESTROYED = "DESTROYED"


OWNING = frozenset({State.OWNER, State.ACTIVE, State.ABORTED, State.RECLAIMED, State.TAKEN})
"""This host owns the machine and no attempt is open."""

LEAVING = frozenset({State.OUTGOING, State.STOPPED, State.RELEASED})
"""An attempt is open here, and this host is its source."""

ARRIVING = frozenset({State.PREPARED, State.READY, State.ACTIVATING})
"""An attempt is open here, and this host is its destination."""

OPEN = LEAVING | ARRIVING
ABSENT = frozenset({State.RETIRED, State.DISCARDED, State.LOST, State.DESTROYED})
"""The machine is not here; only a later attempt can bring it."""

# RETIRED out of a state before RELEASED, and out of a destination's, is the answer to another host's TAKEN alone.
# LOST out of ACTIVATING is ownership.lost_by_word's alone.
TRANSITIONS: dict[State | None, frozenset[State]] = {
    None: frozenset({State.OWNER, State.PREPARED}),
    State.OWNER: frozenset({State.OUTGOING, State.DESTROYED, State.RETIRED}),
    State.ACTIVE: frozenset({State.OUTGOING, State.DESTROYED, State.RETIRED}),
    State.TAKEN: frozenset({State.OUTGOING, State.DESTROYED, State.RETIRED}),
    State.ABORTED: frozenset({State.OUTGOING, State.DESTROYED, State.RETIRED, State.LOST}),
    State.RECLAIMED: frozenset({State.OUTGOING, State.DESTROYED, State.RETIRED, State.LOST}),
    State.OUTGOING: frozenset({State.STOPPED, State.ABORTED, State.LOST, State.RETIRED}),
    State.STOPPED: frozenset({State.RELEASED, State.ABORTED, State.LOST, State.RETIRED}),
    State.RELEASED: frozenset({State.RETIRED, State.RECLAIMED, State.LOST, State.TAKEN}),
    State.PREPARED: frozenset({State.READY, State.DISCARDED, State.LOST}),
    State.READY: frozenset({State.ACTIVATING, State.DISCARDED, State.LOST, State.TAKEN}),
    State.ACTIVATING: frozenset({State.ACTIVE, State.RETIRED, State.LOST}),
    State.RETIRED: frozenset({State.PREPARED}),
    State.DISCARDED: frozenset({State.PREPARED}),
    State.DESTROYED: frozenset({State.PREPARED}),
    State.LOST: frozenset({State.PREPARED, State.DESTROYED}),
}


class IllegalTransition(Refused):
    """The journal is not in a state from which the move exists; nothing was written."""

    def __init__(self, actual: State | None, required: frozenset[State | None], wanted: State) -> None:
        names = " or ".join(sorted("nothing" if state is None else state.value for state in required))
        super().__init__(
            "wrong-state",
            f"The journal says {actual or 'nothing'}, and {wanted} is written only after {names}",
            "Ask for the attempt's state, then act on that",
        )
        self.actual = actual
        self.required = required


def predecessors(state: State) -> frozenset[State | None]:
    """Every state after which `state` may be written."""
    return frozenset(before for before, after in TRANSITIONS.items() if state in after)


def check_transition(actual: State | None, wanted: State) -> None:
    """Raise IllegalTransition unless the table has the move; a restatement of the same state is always legal."""
    if wanted is not actual and wanted not in TRANSITIONS[actual]:
        raise IllegalTransition(actual, predecessors(wanted), wanted)
