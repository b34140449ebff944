"""Which machine moves next, what its attempt's row means for it, and how an evacuation ends: decided purely."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.attempt import Asked, Attempt, Fault, Outcome, Phase, Retry
from orchestrator.evacuation.plan import (
    MOST_REFUSALS,
    Evacuation,
    Kind,
    Move,
    Raised,
    ahead_of,
    closed,
    followed,
    given_up,
    left_by,
    measure_ms,
    next_look,
    noted,
    slots_needed,
    startable,
    started,
    worst_of,
)
from orchestrator.queueing import Slots
from tests.orchestrator.test_queueing import waiting

MOVES = st.builds(
    Move,
    machine=st.uuids().map(str),
    name=st.just("guest"),
    ram_bytes=st.integers(0, 1 << 40),
    destination=st.sampled_from(["", "b", "c"]),
    current=st.sampled_from(["", "one"]),
    not_before=st.sampled_from([0.0, 50.0, 150.0, 86_500.0]),
)
"""Machines that wait or move."""


@st.composite
def plans(draw: st.DrawFn) -> Evacuation:
    moves = []
    for one in draw(st.lists(MOVES, max_size=6, unique_by=lambda one: one.machine)):
        outcome = None if one.current else draw(st.none() | st.sampled_from(Outcome))
        moves.append(replace(one, outcome=outcome, attempts=("one",) if one.current or outcome else ()))
    kind = draw(st.sampled_from(Kind))
    return Evacuation("ev-1", kind, "a", tuple(moves), 1.0, 2.0, parallel=draw(st.integers(1, 4)))


@settings(max_examples=150)
@given(plan=plans())
def test_no_more_machines_are_open_at_once_than_may_and_none_waits_for_nothing(plan: Evacuation) -> None:
    ready, most = startable(plan, 100.0), plan.parallel + ahead_of(plan)
    moving = sum(bool(one.current) for one in plan.moves)
    assert moving + len(ready) <= max(most, moving)
    could = [one for one in plan.moves if one.waiting and one.not_before != 150.0]  # one was put off by another clock
    assert list(ready) == could[: len(ready)]
    assert len(ready) == len(could) or moving + len(ready) >= most
    assert startable(replace(plan, cancel_requested=True), 100.0) == ()


NEW = Move("m", "guest", 1)
OPEN, PUT_OFF = replace(NEW, current="x", attempts=("x",)), replace(NEW, attempts=("x",), refusals=1)
THERE, FAILED = (replace(NEW, attempts=("x",), outcome=one) for one in (Outcome.COMPLETED, Outcome.FAILED))
GONE = replace(NEW, outcome=Outcome.COMPLETED)


@pytest.mark.parametrize(
    ("parallel", "before", "measured"),
    [
        (2, [], False),
        (2, [OPEN] * 5, False),  # the last of the first
        (2, [OPEN] * 6, True),
        (3, [OPEN] * 6, False),
        (2, [PUT_OFF, *[OPEN] * 3], False),  # nothing has arrived, so that nothing may be sent yet
        (2, [FAILED, *[OPEN] * 3], False),
        (2, [GONE, *[OPEN] * 3], False),  # it needed no attempt: that says nothing
        (2, [THERE, PUT_OFF, *[OPEN] * 3], True),  # begun again while the host sends
        (1, [], True),  # nothing is made ready ahead
        (9, [], True),
    ],
)
def test_where_machines_are_made_ready_ahead_the_first_are_not_measured_until_one_has_arrived(
    parallel: int, before: list[Move], measured: bool
) -> None:
    plan = Evacuation("ev-1", Kind.EVACUATE, "a", (*before, NEW), 1.0, 2.0, parallel=parallel, asked=Asked(700))
    assert measure_ms(plan) == (700 if measured else 0)


@settings(max_examples=150)
@given(plan=plans())
def test_nobody_looks_again_later_than_a_machine_that_was_put_off_may_start(plan: Evacuation) -> None:
    put_off = any(one.waiting and one.not_before == 150.0 for one in plan.moves)
    assert next_look(plan, 149.0, 4.0) == (1.0 if put_off else 4.0)
    assert next_look(plan, 100.0, 4.0) == 4.0


@settings(max_examples=150)
@given(plan=plans())
def test_a_cancelled_evacuation_ends_with_what_moves(plan: Evacuation) -> None:
    after = closed(given_up(replace(plan, cancel_requested=True)))
    assert not any(one.waiting for one in after.moves)
    assert after.ended == (not any(one.current for one in plan.moves))
    assert given_up(plan) == plan


@settings(max_examples=100)
@given(plan=plans())
def test_a_plan_that_is_written_is_read_as_it_was(plan: Evacuation) -> None:
    raised = noted(plan, [], Slots())
    assert msgspec.json.decode(msgspec.json.encode(raised), type=Evacuation) == raised


@settings(max_examples=100)
@given(codes=st.lists(st.sampled_from([0, 1, 3, 4, 5, 6, 7])))
def test_the_worst_code_is_the_first_of_the_contracts_order(codes: list[int]) -> None:
    assert worst_of(codes) == next((code for code in (1, 6, 7, 4, 3, 5) if code in codes), 0)


def row(attempt: str, outcome: Outcome | None = None, **changes: object) -> Attempt:
    phases = {None: Phase.QUEUED, Outcome.COMPLETED: Phase.COMPLETED, Outcome.REFUSED: Phase.REFUSED}
    one = replace(waiting(1, "a", "b"), attempt=attempt, phase=phases.get(outcome, Phase.ABORTED), outcome=outcome)
    return replace(one, **changes)  # type: ignore[arg-type]  # the fields that a test names


def test_a_retry_is_followed_and_counts_in_the_place_of_what_failed() -> None:
    move = started(Move("m", "guest", 1), "first")
    failed = row("first", Outcome.FAILED, retry=Retry(next="second"))
    again = followed(move, failed, 5.0, 0.5)
    assert (again.attempts, again.current, again.outcome) == (("first", "second"), "second", None)
    assert followed(again, failed, 5.0, 0.5) == again
    done = followed(again, row("second", Outcome.COMPLETED, destination="c"), 6.0, 0.5)
    assert (done.current, done.outcome, done.destination) == ("", Outcome.COMPLETED, "c")


def test_what_is_refused_for_what_may_pass_is_put_off_ever_longer_and_not_for_ever() -> None:
    move, waits = Move("m", "guest", 1), []
    for number in range(MOST_REFUSALS):
        refused = row(str(number), Outcome.REFUSED, error=Fault("no-memory", "Too little", ""))
        move = followed(started(move, str(number)), refused, 100.0, 1.0)
        assert move.waiting
        waits.append(move.not_before - 100.0)
    assert waits == sorted(waits)
    assert waits[0] < waits[-1]
    last = row("last", Outcome.REFUSED, error=Fault("no-memory", "Too little", ""))
    assert followed(started(move, "last"), last, 100.0, 1.0).outcome == Outcome.REFUSED


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED, Outcome.LOST, Outcome.UNRESOLVED])
def test_any_other_end_is_the_machines(outcome: Outcome) -> None:
    ended = followed(started(Move("m", "guest", 1), "one"), row("one", outcome), 1.0, 0.5)
    assert (ended.outcome, ended.current) == (outcome, "")


def test_what_never_started_as_its_driver_went_gets_another_attempt_however_few_retries() -> None:
    gone = row("one", Outcome.FAILED, error=Fault("driver-gone", "It went away before it started", ""))
    again = followed(started(Move("m", "guest", 1), "one"), gone, 100.0, 1.0)
    assert (again.waiting, again.refusals, again.outcome) == (True, 1, None)


def test_what_machine_itself_refuses_is_not_tried_again() -> None:
    refused = row("one", Outcome.REFUSED, error=Fault("no-migration-support", "It cannot", ""))
    assert followed(started(Move("m", "guest", 1), "one"), refused, 1.0, 0.5).outcome == Outcome.REFUSED


def test_a_restore_brings_back_what_moved_and_nothing_else() -> None:
    moved = Move("m1", "one", 1, "b", ("x",), outcome=Outcome.COMPLETED)
    never = Move("m2", "two", 1, outcome=Outcome.COMPLETED)  # it was not there any more
    failed = Move("m3", "three", 1, "b", ("y",), outcome=Outcome.FAILED)
    plan = Evacuation("ev-1", Kind.EVACUATE, "a", (moved, never, failed), 1.0, 2.0)
    assert [(one.machine, one.destination, one.waiting) for one in left_by(plan)] == [("m1", "a", True)]


def test_slots_are_asked_for_as_many_as_were_given_and_what_was_needed_is_remembered() -> None:
    moves = tuple(started(Move(name, name, 1), name) for name in ("x", "y"))
    plan = Evacuation("ev-1", Kind.EVACUATE, "a", moves, 1.0, 2.0, parallel=3)
    rows = [row("x", destination="b"), row("y", destination="b"), row("foreign", destination="c")]
    assert slots_needed(plan, rows) == ({"a": 3}, {"b": 2})
    seen = noted(plan, rows, Slots())
    assert seen.raised == (Raised("a", "out", 3, 1), Raised("b", "in", 2, 1))
    assert noted(replace(seen, ended=True), [], Slots()).raised == seen.raised
    assert slots_needed(replace(plan, ended=True), rows) == ({}, {})
    narrow = replace(plan, parallel=1)
    assert slots_needed(narrow, rows) == ({"a": 1}, {"b": 1})  # they move one after the other
    back = replace(plan, kind=Kind.RESTORE)
    assert slots_needed(back, [row("x", source="b", destination="a")]) == ({"b": 1}, {"a": 3})
