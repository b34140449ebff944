"""Recovery: each row of docs/protocol/handover.md, and every pair of states, reachability and liveness."""

from dataclasses import replace
from itertools import product

import pytest

from vm_migration.handover import ownership
from vm_migration.handover.evidence import Absence, Process, SideView, Sight, reported, sight_of, unreachable, view
from vm_migration.handover.record import Record
from vm_migration.handover.recovery import Action, decide, outranked
from vm_migration.handover.states import State

A = "5f0e8d0a-1111-4222-8333-444455556666"
ALIVE, GONE, UNKNOWN = Process.ALIVE, Process.GONE, Process.UNKNOWN
UNREACHABLE, NOTHING, PASSED = Absence.UNREACHABLE, Absence.NOTHING, Absence.PASSED
EVERY_SIGHT: tuple[Sight, ...] = (*State, *Absence)
EPOCH = 5


def side(sight: Sight, process: Process = ALIVE, *, pause: int = 1, whole: bool = False, epoch: int = 0) -> SideView:
    above = sight in {State.TAKEN, State.RECLAIMED, PASSED, Absence.ABOVE}
    highest = epoch or (0 if sight is UNREACHABLE else EPOCH + above)
    return SideView(A, sight, process, highest, pause, whole, isinstance(sight, State))


ASK = (Action.ASK,)
NONE: tuple[Action, ...] = ()
PAGE = (Action.PAUSE_SOURCE, Action.PAUSE_DESTINATION, Action.PAGE)
ABORT_GOES_ON = (Action.ABORT_SOURCE,)
ABORT = (Action.ABORT_SOURCE, Action.RESUME_SOURCE)
DISCARD = (Action.DISCARD_DESTINATION,)
RELEASE = (Action.RELEASE_SOURCE, Action.HAND_OFF)
LOSE = (Action.LOSE_SOURCE,)
RECLAIM = (Action.RECLAIM_SOURCE, Action.RESUME_SOURCE)

ROWS: tuple[tuple[SideView, SideView, tuple[Action, ...]], ...] = (
    (side(State.OUTGOING), side(State.PREPARED), ABORT_GOES_ON + DISCARD),
    (side(State.OUTGOING), side(NOTHING), ABORT_GOES_ON),
    (side(State.OUTGOING), side(UNREACHABLE), ASK),
    (side(State.OUTGOING, GONE), side(State.PREPARED), LOSE + DISCARD),
    (side(State.OUTGOING, GONE), side(UNREACHABLE), LOSE),
    (side(State.OUTGOING, UNKNOWN), side(State.PREPARED), ASK),
    (side(State.STOPPED), side(State.READY), RELEASE),
    (side(State.STOPPED), side(State.READY, pause=2), ABORT + DISCARD),
    (side(State.STOPPED), side(State.READY, GONE), ABORT + DISCARD),
    (side(State.STOPPED), side(State.READY, UNKNOWN), ABORT + DISCARD),
    (side(State.STOPPED), side(State.PREPARED, whole=True), ABORT + DISCARD),
    (side(State.STOPPED), side(State.DISCARDED), ABORT),
    (side(State.STOPPED), side(UNREACHABLE), ABORT),
    (side(State.STOPPED, UNKNOWN), side(State.READY), ASK),
    (side(State.STOPPED, GONE), side(State.READY), RELEASE),
    (side(State.STOPPED, GONE), side(State.READY, UNKNOWN), ASK),
    (side(State.STOPPED, GONE), side(State.READY, pause=2), PAGE),
    (side(State.STOPPED, GONE), side(State.PREPARED), (Action.FINISH_OR_GIVE_UP,)),
    (side(State.STOPPED, GONE), side(State.READY, GONE), (Action.LOSE_DESTINATION, Action.LOSE_SOURCE)),
    (side(State.STOPPED, GONE), side(State.DISCARDED), LOSE),
    (side(State.STOPPED, GONE), side(State.LOST), LOSE),
    (side(State.STOPPED, GONE), side(PASSED), LOSE),
    (side(State.STOPPED, GONE), side(NOTHING), ASK),
    (side(State.STOPPED, GONE), side(UNREACHABLE), ASK),
    (side(State.RELEASED), side(State.READY), (Action.HAND_OFF,)),
    (side(State.RELEASED, GONE), side(State.READY), (Action.HAND_OFF,)),
    (side(State.RELEASED), side(State.READY, pause=2), PAGE),
    (side(State.RELEASED), side(State.READY, GONE), (Action.LOSE_DESTINATION, *RECLAIM)),
    (side(State.RELEASED, UNKNOWN), side(State.READY, GONE), (Action.LOSE_DESTINATION, Action.ASK)),
    (side(State.RELEASED, GONE), side(State.READY, GONE), (Action.LOSE_DESTINATION, *LOSE)),
    (side(State.RELEASED), side(State.LOST), RECLAIM),
    (side(State.RELEASED, GONE), side(State.LOST), LOSE),
    (side(State.RELEASED), side(State.ACTIVATING), (Action.ACTIVATE_DESTINATION,)),
    (side(State.RELEASED), side(State.ACTIVATING, GONE), (Action.RECOVER,)),
    (side(State.RELEASED), side(State.ACTIVATING, UNKNOWN), ASK),
    (side(State.RELEASED), side(State.ACTIVE, GONE), (Action.RETIRE_SOURCE,)),
    (side(State.RETIRED), side(State.ACTIVE), (Action.RETIRE_SOURCE,)),
    (side(State.RELEASED), side(UNREACHABLE), ASK),
    (side(State.RELEASED), side(State.PREPARED), PAGE),
    (side(State.RELEASED), side(State.DISCARDED), PAGE),
    (side(State.RELEASED), side(NOTHING), PAGE),
    (side(State.RELEASED), side(PASSED), PAGE),
    (side(State.RETIRED), side(State.PREPARED), PAGE),
    (side(State.RETIRED), side(State.DISCARDED), PAGE),
    (side(State.RETIRED), side(NOTHING), PAGE),
    (side(State.RETIRED), side(UNREACHABLE), NONE),
    (side(State.RETIRED, epoch=EPOCH + 3), side(State.ACTIVE), (Action.PAUSE_DESTINATION, Action.PAGE)),
    (side(State.ABORTED), side(State.READY), (Action.RESUME_SOURCE, *DISCARD)),
    (side(State.ABORTED), side(UNREACHABLE), (Action.RESUME_SOURCE,)),
    (side(State.ABORTED, GONE), side(State.PREPARED), LOSE + DISCARD),
    (side(State.ABORTED, UNKNOWN), side(State.READY), DISCARD + ASK),
    (side(State.RECLAIMED), side(State.LOST), (Action.RESUME_SOURCE,)),
    (side(State.RECLAIMED), side(UNREACHABLE), (Action.RESUME_SOURCE,)),
    (side(State.RECLAIMED, GONE), side(State.LOST), LOSE),
    (side(State.RECLAIMED), side(State.READY), PAGE),
    (side(State.LOST, GONE), side(State.READY), DISCARD),
    (side(PASSED), side(State.READY), DISCARD),
    (side(PASSED), side(State.PREPARED), DISCARD),
    (side(NOTHING), side(State.READY), ASK),
    (side(UNREACHABLE), side(State.PREPARED), ASK),
    (side(UNREACHABLE), side(State.PREPARED, whole=True), ASK),
    (side(UNREACHABLE), side(State.PREPARED, GONE, whole=True), (Action.LOSE_DESTINATION,)),
    (side(UNREACHABLE), side(State.READY), ASK),
    (side(UNREACHABLE), side(State.READY, GONE), (Action.LOSE_DESTINATION,)),
    (side(UNREACHABLE), side(State.ACTIVATING), (Action.ACTIVATE_DESTINATION,)),
    (side(UNREACHABLE), side(State.ACTIVATING, GONE), (Action.RECOVER,)),
    (side(UNREACHABLE), side(State.ACTIVE, GONE), NONE),
    (side(UNREACHABLE), side(UNREACHABLE), ASK),
    (side(State.TAKEN), side(State.READY), (Action.DISCARD_DESTINATION, Action.RESUME_SOURCE)),
    (
        side(State.TAKEN),
        side(State.ACTIVE),
        (Action.PAUSE_DESTINATION, Action.RETIRE_DESTINATION, Action.RESUME_SOURCE),
    ),
    (
        side(State.ABORTED),
        side(State.TAKEN),
        (Action.PAUSE_SOURCE, Action.RETIRE_SOURCE, Action.RESUME_DESTINATION),
    ),
    (side(State.RELEASED), side(State.TAKEN, GONE), (Action.PAUSE_SOURCE, Action.RETIRE_SOURCE)),
    (side(State.RETIRED), side(State.TAKEN), (Action.RESUME_DESTINATION,)),
    (side(State.TAKEN), side(State.TAKEN), PAGE),
    (
        side(State.TAKEN, epoch=9),
        side(State.TAKEN, epoch=8),
        (Action.PAUSE_DESTINATION, Action.RETIRE_DESTINATION, Action.RESUME_SOURCE),
    ),
)


@pytest.mark.parametrize(("source", "destination", "actions"), ROWS)
def test_the_row(source: SideView, destination: SideView, actions: tuple[Action, ...]) -> None:
    assert decide(source, destination).actions == actions


def test_what_a_deadline_adds() -> None:
    assert decide(side(State.OUTGOING), side(UNREACHABLE), past_deadline=True).actions == ABORT_GOES_ON
    assert decide(side(UNREACHABLE), side(State.PREPARED), past_deadline=True).actions == DISCARD
    assert decide(side(UNREACHABLE), side(State.PREPARED, whole=True), past_deadline=True).actions == ASK
    assert decide(side(State.STOPPED), side(State.READY), over_pause_bound=True).actions == ABORT + DISCARD
    assert decide(side(State.STOPPED, GONE), side(State.READY), over_pause_bound=True).actions == RELEASE


def _every_pair() -> list[tuple[SideView, SideView]]:
    return [
        (side(at_source, source_process), side(at_destination, destination_process, pause=pause, whole=whole))
        for at_source, source_process, at_destination, destination_process, pause, whole in product(
            EVERY_SIGHT, Process, EVERY_SIGHT, Process, (1, 2), (False, True)
        )
    ]


SOURCE_RUNS = frozenset({State.OUTGOING, State.ABORTED, State.RECLAIMED, State.TAKEN})
DESTINATION_RUNS = frozenset({State.ACTIVATING, State.ACTIVE, State.TAKEN})


def _may_run_after(source: SideView, destination: SideView, actions: tuple[Action, ...]) -> tuple[bool, bool]:
    at_source = source.sight in SOURCE_RUNS
    at_destination = destination.sight in DESTINATION_RUNS
    for action in actions:
        match action:
            case Action.RESUME_SOURCE:
                at_source = True
            case Action.HAND_OFF | Action.ACTIVATE_DESTINATION | Action.RESUME_DESTINATION:
                at_destination = True
            case Action.PAUSE_SOURCE | Action.RETIRE_SOURCE | Action.LOSE_SOURCE:
                at_source = False
            case Action.PAUSE_DESTINATION | Action.RETIRE_DESTINATION | Action.DISCARD_DESTINATION:
                at_destination = False
            case _:
                pass
    return at_source, at_destination


@pytest.mark.parametrize(("past_deadline", "over_bound"), [*product((False, True), repeat=2)])
def test_every_pair_is_decided_and_no_decision_lets_both_run(*, past_deadline: bool, over_bound: bool) -> None:
    ends = {State.ABORTED, State.LOST, State.TAKEN, State.OUTGOING, State.STOPPED, PASSED, Absence.ABOVE}
    for source, destination in _every_pair():
        decision = decide(source, destination, past_deadline=past_deadline, over_pause_bound=over_bound)
        assert decision.reason
        assert _may_run_after(source, destination, decision.actions) != (True, True), (source, destination)
        if Action.DISCARD_DESTINATION in decision.actions and destination.sight is State.READY:
            assert source.sight in ends
            assert source.sight not in {State.OUTGOING, State.STOPPED} or decision.actions[0] in {
                Action.ABORT_SOURCE,
                Action.LOSE_SOURCE,
            }
        if Action.RELEASE_SOURCE in decision.actions:
            assert (source.sight, destination.sight) == (State.STOPPED, State.READY)
            assert source.pause == destination.pause
        if {Action.RECLAIM_SOURCE, Action.RETIRE_SOURCE} & set(decision.actions):
            assert source.sight in {*SOURCE_RUNS, State.STOPPED, State.RELEASED, State.RETIRED}


CONTRADICTIONS = (
    *product((State.RELEASED, State.RETIRED), (NOTHING, State.PREPARED, State.DISCARDED)),
    *product((State.OUTGOING, State.STOPPED, State.ABORTED, State.LOST), (State.ACTIVATING, State.ACTIVE)),
)


@pytest.mark.parametrize(("at_source", "at_destination"), CONTRADICTIONS)
def test_what_cannot_be_pauses_both_and_pages(at_source: Sight, at_destination: Sight) -> None:
    for source_process, destination_process in product(Process, repeat=2):
        decision = decide(side(at_source, source_process), side(at_destination, destination_process))
        assert decision.actions == PAGE
        assert decision.needs_person


def test_states_of_the_other_role_are_contradictions() -> None:
    for state in (State.PREPARED, State.READY, State.ACTIVATING, State.ACTIVE, State.DISCARDED, State.OWNER):
        assert decide(side(state), side(State.PREPARED)).actions == PAGE
    for state in (State.OUTGOING, State.STOPPED, State.RELEASED, State.ABORTED, State.OWNER, State.DESTROYED):
        assert decide(side(State.OUTGOING), side(state)).actions == PAGE


def test_nothing_is_concluded_from_a_process_that_does_not_answer() -> None:
    for source, destination in _every_pair():
        decision = decide(source, destination, past_deadline=True, over_pause_bound=True)
        if source.process is UNKNOWN:
            assert Action.LOSE_SOURCE not in decision.actions
            assert Action.RESUME_SOURCE not in decision.actions
        if destination.process is UNKNOWN:
            assert Action.LOSE_DESTINATION not in decision.actions
            assert Action.ACTIVATE_DESTINATION not in decision.actions


def _record(**facts: object) -> Record:
    made = ownership.create("0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01", instance="i", was_running=True, specification="")
    return Record(**{**{name: getattr(made, name) for name in made.__struct_fields__}, **facts})


@pytest.mark.parametrize(
    ("facts", "sight"),
    [
        ({"attempt": A, "epoch": EPOCH, "state": State.READY, "highest_epoch": EPOCH}, State.READY),
        ({"attempt": "other", "highest_epoch": EPOCH + 1, "owned_epoch": EPOCH}, State.ACTIVE),
        ({"attempt": "other", "highest_epoch": EPOCH + 2, "owned_epoch": EPOCH + 1}, Absence.ABOVE),
        ({"attempt": "other", "highest_epoch": EPOCH + 2, "owned_epoch": 2, "released_epoch": EPOCH + 1}, PASSED),
        ({"attempt": "other", "highest_epoch": EPOCH + 1, "owned_epoch": 2, "released_epoch": EPOCH}, State.RETIRED),
        ({"attempt": "other", "highest_epoch": EPOCH + 1, "owned_epoch": 2}, PASSED),
        ({"attempt": None, "highest_epoch": EPOCH, "owned_epoch": 2}, NOTHING),
    ],
)
def test_a_journal_answers_for_an_attempt_that_it_left_behind(facts: dict[str, object], sight: Sight) -> None:
    assert view(_record(**facts), A, EPOCH).sight is sight


def test_a_report_without_a_journal_is_unreachable() -> None:
    def seen(sight: Sight | None, highest: int) -> SideView:
        return reported(A, EPOCH, sight=sight, highest_epoch=highest, pause=0, whole=False, process=UNKNOWN)

    assert seen(None, 0) == unreachable(A)
    assert seen(None, EPOCH).sight is NOTHING
    assert seen(None, EPOCH + 1).sight is PASSED
    assert seen(State.READY, EPOCH).sight is State.READY
    assert seen(State.ACTIVE, EPOCH).held
    assert not seen(State.ACTIVE, EPOCH + 1).held
    assert seen(Absence.ABOVE, EPOCH + 1).sight is Absence.ABOVE
    assert [sight_of(each) for each in ("", "READY", "above")] == [None, State.READY, Absence.ABOVE]
    with pytest.raises(ValueError, match="sideways"):
        sight_of("sideways")


def test_nothing_follows_for_an_attempt_that_both_sides_left_behind() -> None:
    old = [replace(side(sight), held=False) for sight in (State.RETIRED, State.ACTIVE, PASSED, Absence.ABOVE)]
    for source, destination in product(old, repeat=2):
        assert decide(source, destination).actions == NONE


def test_a_taker_that_has_gone_on_is_obeyed_and_not_touched() -> None:
    above = side(Absence.ABOVE)
    assert decide(above, side(State.ACTIVE)).actions == (Action.PAUSE_DESTINATION, Action.RETIRE_DESTINATION)
    assert decide(above, side(State.READY)).actions == DISCARD
    assert decide(above, side(State.LOST)).actions == NONE
    assert decide(side(State.ABORTED), above).actions == (Action.PAUSE_SOURCE, Action.RETIRE_SOURCE)
    assert decide(side(UNREACHABLE), above).actions == NONE
    assert decide(above, side(State.TAKEN)).actions == PAGE


def test_only_another_hosts_durable_claim_above_the_owned_epoch_outranks() -> None:
    mine = _record(owned_epoch=3, highest_epoch=5)
    assert outranked(mine, State.TAKEN, 4)
    assert outranked(mine, State.ACTIVE, 4)
    assert not outranked(mine, State.ACTIVE, 3)
    assert not outranked(mine, State.OUTGOING, 9)
