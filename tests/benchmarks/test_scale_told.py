"""How late transitions were told, of what a subscriber and the simulated hosts wrote down."""

import json

import pytest

from benchmarks.__main__ import RESULTS, SCALE_PAGE
from benchmarks.reliability_page import BEGIN, END, read, table
from benchmarks.scale.fleet import Happened
from benchmarks.scale.scenario import PAGE_ROWS
from benchmarks.scale.told import (
    Message,
    delays,
    happened_of,
    in_flight,
    message_of,
    open_at,
    percentile,
    taken_up,
    transitions,
)


def line(at: float, kind: str, phase: str, *, retained: bool = False, stamp: str = "", attempt: str = "a") -> str:
    document = {"attempt": attempt, "phase": phase, "source": "host-a", "at": stamp, "percent": 1}
    return f"{at} {int(retained)} viaduct/v1/test/migration/{attempt}/{kind} {json.dumps(document)}"


def state(at: float, phase: str, *, retained: bool = False, attempt: str = "a") -> Message:
    found = message_of(line(at, "state", phase, retained=retained, attempt=attempt))
    assert found is not None
    return found


def test_progress_and_what_is_cleared_are_not_read() -> None:
    assert message_of(line(1.0, "progress", "pre-copy")) is None
    assert message_of("1.0 1 viaduct/v1/test/migration/a/state ") is None


def test_what_happened_is_read_as_it_was_written() -> None:
    assert happened_of("12.5 a term 2\n") == Happened("a", "term 2", 12.5)


def test_a_transition_is_told_by_the_first_state_that_names_it_or_a_later_one() -> None:
    went = [Happened("a", "begun", 1.0), Happened("a", "pre-copy", 1.5), Happened("a", "stopping", 9.0)]
    messages = [state(1.6, "pre-copy"), state(3.0, "pre-copy"), state(9.5, "aborted")]
    assert delays(went, messages) == pytest.approx([0.6, 0.1, 0.5])


def test_what_was_never_told_or_of_another_attempt_or_kept_by_the_broker_is_no_answer() -> None:
    went = [Happened("a", "stopping", 9.0)]
    others = [state(9.1, "pre-copy"), state(9.1, "stopping", attempt="b"), state(9.1, "stopping", retained=True)]
    assert delays(went, others) == [None]


def test_the_orchestrator_s_own_transitions_are_those_of_its_events() -> None:
    event = message_of(line(1.1, "event", "queued", stamp="1970-01-01T00:00:01.000Z"))
    begun = message_of(line(1.1, "event", "begun", stamp="1970-01-01T00:00:01.000Z"))
    assert event is not None
    assert begun is not None
    heard = Happened("a", "begun", 3.0)
    assert transitions([heard, Happened("a", "term 2", 4.0)], [event, begun]) == [Happened("a", "queued", 1.0), heard]


def test_attempts_are_in_flight_from_when_their_source_opened_them_to_their_end() -> None:
    went = [Happened("a", "opened", 1.0), Happened("b", "opened", 2.0), Happened("a", "completed", 3.0)]
    assert [in_flight(went).at(moment) for moment in (0.5, 1.0, 2.5, 3.0)] == [0, 1, 2, 1]
    assert [open_at(went, moment) for moment in (2.5, 3.0)] == [{"a", "b"}, {"b"}]


def test_an_attempt_is_taken_up_when_its_source_has_heard_the_next_term_and_its_state_was_told() -> None:
    heard = [Happened("a", "term 2", 6.0), Happened("b", "term 2", 5.5), Happened("a", "term 1", 4.0)]
    messages = [state(4.5, "pre-copy"), state(5.7, "pre-copy"), state(7.0, "pre-copy", attempt="b")]
    assert taken_up(["a", "b"], heard, messages, since=5.0) == 7.0
    assert taken_up(["a", "b"], heard[:1], messages, since=5.0) is None
    assert taken_up(["a", "b"], heard, messages[:2], since=5.0) is None


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert [percentile(list(range(1, 201)), share) for share in (0.5, 0.99, 1.0)] == [100, 198, 200]
    assert percentile([3.0], 0.99) == 3.0


def test_the_page_shows_what_the_results_say() -> None:
    shown = SCALE_PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip("\n")
    assert shown == table(read(RESULTS), PAGE_ROWS), 'make bench ARGS="--only scale" writes it'
