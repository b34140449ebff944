"""What a destination does by itself, row by row, written out from docs/protocol/handover.md and not from the code."""

from itertools import product

import pytest

from vm_migration.handover.awaiting import Step, awaited, restarted
from vm_migration.handover.evidence import Absence, Process, SideView, Sight
from vm_migration.handover.states import State

A = "5f0e8d0a-1111-4222-8333-444455556666"
ALIVE, GONE, UNKNOWN = Process.ALIVE, Process.GONE, Process.UNKNOWN
EPOCH = 5
EVERY_SIGHT: tuple[Sight, ...] = (*State, *Absence)
PART, WHOLE, READY = "PREPARED, not whole", "PREPARED, whole", "READY"
ACTIVATING, ACTIVE = "ACTIVATING", "ACTIVE"
HERE = {
    PART: (State.PREPARED, False),
    WHOLE: (State.PREPARED, True),
    READY: (State.READY, True),
    ACTIVATING: (State.ACTIVATING, True),
    ACTIVE: (State.ACTIVE, True),
}

PROVEN_END = (State.ABORTED, State.LOST, State.TAKEN, Absence.PASSED, Absence.ABOVE)
UNDER_WAY = (State.OUTGOING, State.STOPPED)
SILENT = (Absence.UNREACHABLE,)
FORGOTTEN = (Absence.NOTHING,)
RELEASED, RETIRED = (State.RELEASED,), (State.RETIRED,)
ABOVE = (State.TAKEN, Absence.ABOVE)
NO_SOURCES_STATE = (
    State.OWNER,
    State.PREPARED,
    State.READY,
    State.ACTIVATING,
    State.ACTIVE,
    State.DISCARDED,
    State.DESTROYED,
)

# (here, its process, what the source says) -> what follows within the patience, and past it
Row = tuple[str, tuple[Process, ...], tuple[Sight, ...], Step, Step]
ANY = (ALIVE, GONE, UNKNOWN)
ROWS: tuple[Row, ...] = (
    # ended by its journal | PREPARED, READY -> discards; an image that is gone says so itself
    (PART, (ALIVE, UNKNOWN), PROVEN_END, Step.DISCARD, Step.DISCARD),
    (PART, (GONE,), PROVEN_END, Step.GIVE_UP, Step.GIVE_UP),
    *((at, (ALIVE, UNKNOWN), PROVEN_END, Step.DISCARD, Step.DISCARD) for at in (WHOLE, READY)),
    *((at, (GONE,), PROVEN_END, Step.LOSE, Step.LOSE) for at in (WHOLE, READY)),
    # OUTGOING, STOPPED: the source decides
    (PART, (ALIVE, UNKNOWN), UNDER_WAY, Step.WAIT, Step.WAIT),
    (PART, (GONE,), UNDER_WAY, Step.GIVE_UP, Step.GIVE_UP),
    *((at, (ALIVE, UNKNOWN), UNDER_WAY, Step.WAIT, Step.WAIT) for at in (WHOLE, READY)),
    *((at, (GONE,), UNDER_WAY, Step.LOSE, Step.LOSE) for at in (WHOLE, READY)),
    # silent | PREPARED, not whole -> may be discarded past the deadline
    (PART, (ALIVE, UNKNOWN), SILENT + FORGOTTEN, Step.WAIT, Step.GIVE_UP),
    (PART, (GONE,), SILENT + FORGOTTEN, Step.GIVE_UP, Step.GIVE_UP),
    # silent | READY -> ask; its process gone -> LOST
    *((at, (ALIVE, UNKNOWN), SILENT + FORGOTTEN, Step.WAIT, Step.WAIT) for at in (WHOLE, READY)),
    *((at, (GONE,), SILENT + FORGOTTEN, Step.LOSE, Step.LOSE) for at in (WHOLE, READY)),
    # RELEASED | READY -> the secret is sent again, for ever; process gone -> LOST
    (READY, (ALIVE, UNKNOWN), RELEASED, Step.WAIT, Step.WAIT),
    (READY, (GONE,), RELEASED, Step.LOSE, Step.LOSE),
    # RELEASED, RETIRED | PREPARED: cannot be. RETIRED was written on this side's ACTIVE, which READY is not.
    *((at, ANY, RELEASED + RETIRED, Step.CONTRADICTION, Step.CONTRADICTION) for at in (PART, WHOLE)),
    (READY, ANY, RETIRED, Step.CONTRADICTION, Step.CONTRADICTION),
    # RECLAIMED was written on this side's LOST
    *((at, ANY, (State.RECLAIMED,), Step.CONTRADICTION, Step.CONTRADICTION) for at in HERE),
    # a destination's states are no source's
    *((at, ANY, NO_SOURCES_STATE, Step.CONTRADICTION, Step.CONTRADICTION) for at in HERE),
    # RELEASED, silent | ACTIVATING -> starts it; gone: nobody can know
    (ACTIVATING, (ALIVE,), RELEASED + RETIRED + SILENT, Step.ACTIVATE, Step.ACTIVATE),
    (ACTIVATING, (GONE,), RELEASED + RETIRED + SILENT, Step.OPERATOR, Step.OPERATOR),
    (ACTIVATING, (UNKNOWN,), RELEASED + RETIRED + SILENT, Step.WAIT, Step.WAIT),
    # TAKEN on either side -> its holder owns the machine, other copies retire
    *((at, ANY, ABOVE, Step.RETIRE, Step.RETIRE) for at in (ACTIVATING, ACTIVE)),
    # OUTGOING, STOPPED, ABORTED, LOST, and a journal that never released it | ACTIVATING, ACTIVE: cannot be
    *(
        (at, ANY, (*UNDER_WAY, State.ABORTED, State.LOST, Absence.PASSED, Absence.NOTHING), Step.CONTRADICTION, again)
        for at in (ACTIVATING, ACTIVE)
        for again in (Step.CONTRADICTION,)
    ),
    # RETIRED | ACTIVE: the former source is seen RETIRED; RELEASED, silent | ACTIVE: goes on
    (ACTIVE, ANY, RETIRED, Step.NOTE_RETIRED, Step.NOTE_RETIRED),
    (ACTIVE, ANY, RELEASED + SILENT, Step.WAIT, Step.WAIT),
)
TABLE = {
    (at, process, sight): (within, past)
    for at, processes, sights, within, past in ROWS
    for process, sight in product(processes, sights)
}


def here(at: str, process: Process) -> SideView:
    state, whole = HERE[at]
    return SideView(A, state, process, EPOCH, 1, whole, held=True)


def source(sight: Sight) -> SideView:
    above = sight in {State.TAKEN, State.RECLAIMED, Absence.PASSED, Absence.ABOVE}
    highest = 0 if sight is Absence.UNREACHABLE else EPOCH + above
    return SideView(A, sight, ALIVE, highest, 1, whole=False, held=isinstance(sight, State))


def test_the_table_has_every_case_once() -> None:
    assert len(TABLE) == sum(len(row[1]) * len(row[2]) for row in ROWS)
    assert set(TABLE) == set(product(HERE, Process, EVERY_SIGHT))


@pytest.mark.parametrize("at", HERE)
def test_every_case_is_as_the_table_says(at: str) -> None:
    for process, sight in product(Process, EVERY_SIGHT):
        within, past = TABLE[at, process, sight]
        for out_of_patience, step in ((False, within), (True, past)):
            found = awaited(source(sight), here(at, process), out_of_patience=out_of_patience)
            assert found.step is step, (at, process, sight, out_of_patience)
            assert found.reason


def test_what_is_whole_is_freed_on_proof_alone_or_when_it_is_gone() -> None:
    for at, process, sight in product((WHOLE, READY), Process, EVERY_SIGHT):
        step = awaited(source(sight), here(at, process), out_of_patience=True).step
        assert step is not Step.GIVE_UP
        if step is Step.DISCARD:
            assert sight in PROVEN_END


def test_no_arrival_that_is_not_whole_outlives_a_restart_and_nothing_else_changes() -> None:
    for at, process, sight in product(HERE, Process, EVERY_SIGHT):
        usual = awaited(source(sight), here(at, process), out_of_patience=True).step
        step = restarted(source(sight), here(at, process)).step
        assert step is (Step.GIVE_UP if at == PART and usual is Step.WAIT else usual)


@pytest.mark.parametrize("state", set(State) - {state for state, _ in HERE.values()})
def test_nothing_follows_for_what_has_ended_here_or_is_another_sides(state: State) -> None:
    for sight in EVERY_SIGHT:
        view = SideView(A, state, ALIVE, EPOCH, 1, whole=True)
        assert awaited(source(sight), view, out_of_patience=True).step is Step.REST


def test_a_former_source_that_retired_before_another_hosts_taken_is_no_proof() -> None:
    elsewhere = SideView(A, State.RETIRED, ALIVE, EPOCH + 3, 1, whole=False)
    assert awaited(elsewhere, here(ACTIVE, ALIVE), out_of_patience=False).step is Step.CONTRADICTION
