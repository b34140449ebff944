"""The transition table: every legal and every illegal move."""

from itertools import product

import pytest

from vm_migration.errors import Refused
from vm_migration.handover.states import (
    ABSENT,
    ARRIVING,
    LEAVING,
    OPEN,
    OWNING,
    TRANSITIONS,
    IllegalTransition,
    State,
    check_transition,
    predecessors,
)

PICTURE: frozenset[tuple[State | None, State]] = frozenset(
    {
        (None, State.OWNER),
        (None, State.PREPARED),
        *((state, State.OUTGOING) for state in OWNING),
        *((state, State.DESTROYED) for state in OWNING | {State.LOST}),
        (State.OUTGOING, State.STOPPED),
        (State.OUTGOING, State.ABORTED),
        (State.OUTGOING, State.LOST),
        (State.STOPPED, State.RELEASED),
        (State.STOPPED, State.ABORTED),
        (State.STOPPED, State.LOST),
        (State.RELEASED, State.RETIRED),
        (State.RELEASED, State.RECLAIMED),
        (State.RELEASED, State.LOST),
        (State.ABORTED, State.LOST),
        (State.RECLAIMED, State.LOST),
        *((state, State.PREPARED) for state in ABSENT),
        (State.PREPARED, State.READY),
        (State.PREPARED, State.DISCARDED),
        (State.PREPARED, State.LOST),
        (State.READY, State.ACTIVATING),
        (State.READY, State.DISCARDED),
        (State.READY, State.LOST),
        (State.ACTIVATING, State.ACTIVE),
        # an operator's recovery, and the answer to another host's
        (State.READY, State.TAKEN),
        (State.RELEASED, State.TAKEN),
        (State.ACTIVATING, State.LOST),
        *((state, State.RETIRED) for state in OWNING | {State.OUTGOING, State.STOPPED, State.ACTIVATING}),
    }
)


def test_the_table_is_the_picture() -> None:
    assert {(before, after) for before, followers in TRANSITIONS.items() for after in followers} == PICTURE
    assert set(TRANSITIONS) == {None, *State}


@pytest.mark.parametrize(("actual", "wanted"), list(product((None, *State), State)))
def test_a_move_is_legal_exactly_when_the_picture_has_it(actual: State | None, wanted: State) -> None:
    if actual is wanted or (actual, wanted) in PICTURE:
        check_transition(actual, wanted)
        return
    with pytest.raises(IllegalTransition) as caught:
        check_transition(actual, wanted)
    assert caught.value.actual is actual
    assert caught.value.required == predecessors(wanted)
    assert isinstance(caught.value, Refused)


def test_every_state_is_in_one_kind() -> None:
    assert set(State) == OWNING | OPEN | ABSENT
    assert not OWNING & OPEN
    assert not OWNING & ABSENT
    assert not OPEN & ABSENT
    assert not LEAVING & ARRIVING


def test_a_machine_that_runs_at_a_destination_is_never_lost_there() -> None:
    # Out of ACTIVATING only by an operator's word, as a LOST that names no attempt: ownership.lost_by_word.
    assert State.LOST not in TRANSITIONS[State.ACTIVE]
