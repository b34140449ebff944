"""The judge and its evidence, on what never happened: each lie is found, and the truth is not complained of."""

import msgspec
import pytest

from tests.faults.expected import Ending, Moment, Stage, expected, outcomes
from tests.faults.judgement import judge
from tests.faults.observation import Diagnosis, Observation, SecondAttempt
from tests.faults.report import BEGIN, END, between_markers, document, lost_pages, tables
from tests.faults.rows import Back, Deed, Row, Victim, When, boundaries, chosen, parse, possible

READY = Moment(source="STOPPED", destination="READY", whole=True, started=True)
GOOD = Observation(
    row="kill:source-vmm:ready:never",
    moments=(READY, READY),
    ending="completed",
    outcome="completed",
    settled_by="itself",
    looks=100,
    compared=True,
    diagnosis=Diagnosis(exit_code=0, state="running", owner="host-b", problems=()),
    second=SecondAttempt(
        destination="host-c", outcome="completed", error="", pages=8, pages_verified=8, pages_mismatched=0
    ),
)


def changed(**changes: object) -> Observation:
    return msgspec.structs.replace(GOOD, **changes)


def moment(source: str, destination: str = "", *, whole: bool = False, started: bool = True) -> Moment:
    return Moment(source=source, destination=destination, whole=whole, started=started)


def test_what_is_as_it_must_be_is_not_complained_of() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"double_runs": ("both ran",)}, "double run"),
        ({"differing_pages": 1}, "pages differ"),
        ({"mismatched": 2}, "mismatched"),
        ({"guest_errors": 1}, "errors"),
        ({"looks": 0}, "nobody looked"),
        ({"ending": "lost", "outcome": "lost"}, "expected completed"),
        ({"ending": "broken"}, "expected completed"),
        ({"outcome": "failed"}, "the driver was told failed"),
        ({"exit_code": 4}, "exited with 4"),
        ({"settled_by": "nothing: open"}, "without a guess"),
        ({"diagnosis": None}, "doctor did not answer"),
        ({"diagnosis": Diagnosis(exit_code=8, state="running", owner="", problems=("x at y",))}, "doctor finds"),
        ({"diagnosis": Diagnosis(exit_code=0, state="lost", owner="", problems=())}, "doctor says"),
        ({"second": None}, "no second attempt"),
        ({"remains": ("process 1",)}, "left over"),
        ({"missed": "gone"}, "was missed"),
        ({"broken": "trace"}, "harness"),
    ],
)
def test_whatever_is_not_as_it_must_be_is_said(changes: dict[str, object], words: str) -> None:
    assert any(words in line for line in judge(changed(**changes)))


@pytest.mark.parametrize(
    "second",
    [
        {"outcome": "failed"},
        {"pages_mismatched": 1},
        {"pages_verified": 7},
    ],
)
def test_a_second_attempt_that_is_not_whole_is_said(second: dict[str, object]) -> None:
    assert GOOD.second is not None
    assert "second attempt" in judge(changed(second=msgspec.structs.replace(GOOD.second, **second)))[0]


def test_a_machine_that_nobody_knows_about_must_be_found_by_the_doctor_and_left_alone() -> None:
    moments = (moment("RELEASED", "ACTIVATING", whole=True),) * 2
    seen = changed(
        row="kill:destination-vmm:handing-over:never",
        moments=moments,
        ending="unresolved",
        outcome="unresolved",
        settled_by="recover",
        by_word="runs",
        diagnosis=Diagnosis(exit_code=8, state="unresolved", owner="", problems=("activation-unknown at host-b",)),
    )
    assert judge(seen) == []
    assert judge(msgspec.structs.replace(seen, settled_by="itself")) != []
    assert judge(msgspec.structs.replace(seen, by_word="no")) != []
    sound = Diagnosis(exit_code=0, state="running", owner="host-b", problems=())
    assert judge(msgspec.structs.replace(seen, diagnosis=sound)) != []


@pytest.mark.parametrize(
    ("row", "at", "endings"),
    [
        ("kill:source-vmm:queued:never", moment("", started=False), {"died"}),
        ("kill:source-vmm:pre-copy:never", moment("OUTGOING", "PREPARED"), {"lost"}),
        ("kill:source-vmm:verifying:never", moment("STOPPED", "PREPARED", whole=True), {"completed"}),
        ("kill:source-vfio-host:releasing:never", moment("RELEASED", "READY", whole=True), {"completed"}),
        ("kill:destination-vmm:pre-copy:never", moment("OUTGOING", "PREPARED"), {"stayed"}),
        ("kill:destination-vmm:releasing:never", moment("RELEASED", "READY", whole=True), {"stayed"}),
        ("kill:destination-vmm:active:never", moment("RELEASED", "ACTIVE", whole=True), {"died"}),
        ("kill:source-agent:pre-copy:soon", moment("OUTGOING", "PREPARED"), {"stayed"}),
        ("kill:source-agent:ready:soon", moment("STOPPED", "READY", whole=True), {"stayed", "completed"}),
        ("kill:source-agent:releasing:late", moment("RELEASED", "READY", whole=True), {"completed"}),
        ("freeze:source-agent:pre-copy:late", moment("OUTGOING", "PREPARED"), {"stayed", "completed"}),
        ("kill:orchestrator:pre-copy:soon", moment("OUTGOING", "PREPARED"), {"completed"}),
        ("kill:cli:preparing:never", moment("OUTGOING", started=False), {"stayed", "completed"}),
        ("kill:broker:completed:soon", moment("RETIRED", "ACTIVE", whole=True), {"completed"}),
        ("cut:between:releasing:late", moment("RELEASED", "READY", whole=True), {"completed"}),
        ("cut:source:3.000s:late", moment("ABORTED", "DISCARDED"), {"stayed"}),
    ],
)
def test_what_may_follow_is_the_protocols(row: str, at: Moment, endings: set[str]) -> None:
    assert {ending.value for ending in expected(parse(row), [at, at])} == endings


def test_every_row_at_every_stage_may_come_to_something_and_never_to_a_broken_state() -> None:
    stages = [moment("OUTGOING"), moment("STOPPED", "PREPARED"), READY, moment("RELEASED", "READY", whole=True)]
    for row in boundaries(cables=True):
        for at in stages:
            found = expected(row, [at])
            assert found
            assert Ending.BROKEN not in found


def test_at_a_random_moment_the_next_stage_counts_too() -> None:
    ready = Moment(source="STOPPED", destination="PREPARED", whole=False, started=True)
    row = Row(Deed.KILL, Victim.SOURCE_VMM, 1.0, Back.NEVER)
    assert expected(row, [ready]) == {Ending.LOST, Ending.COMPLETED}
    assert ready.stage + 1 == Stage.WHOLE


def test_every_ending_has_its_outcomes_but_the_broken_one() -> None:
    row = parse(GOOD.row)
    assert all(outcomes(row, ending) for ending in Ending if ending is not Ending.BROKEN)
    assert not outcomes(row, Ending.BROKEN)


def test_nobody_is_told_of_a_cancel_but_whose_command_was_killed_before_it_began() -> None:
    for victim in Victim:
        row = Row(Deed.KILL, victim, 1.0, Back.NEVER)
        assert ("cancelled" in outcomes(row, Ending.STAYED)) is (victim is Victim.CLI)


def test_rows_are_read_back_as_they_are_written() -> None:
    rows = chosen(300, 7, cables=True)
    assert [parse(str(row)) for row in rows] == rows
    assert chosen(300, 7, cables=True) == rows
    assert all(possible(row) for row in rows)
    assert len(rows) == 300


def test_without_cables_nothing_is_cut() -> None:
    assert all(row.deed is not Deed.CUT for row in chosen(300, 7, cables=False))


@pytest.mark.parametrize("text", ["kill", "kill:nobody:ready:never", "cut:cli:ready:late", "kill:cli:ready:soon"])
def test_what_cannot_happen_is_no_row(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


def test_every_victim_and_every_boundary_is_in_the_matrix() -> None:
    rows = list(boundaries(cables=True))
    assert {row.victim for row in rows} == set(Victim)
    assert {row.when for row in rows} == set(When)
    assert {row.deed for row in rows} == set(Deed)


def test_the_table_counts_what_was_observed() -> None:
    seen = [GOOD, changed(differing_pages=3), changed(double_runs=("both ran",), row="freeze:source-vmm:ready:late")]
    run: dict[str, object] = {"date": "d", "cpus": 2, "kernel": "k", "lanes": 1, "minutes": 1, "seed": 1}
    text = tables(seen, run)
    assert "| faults injected into real processes | 3 |" in text
    assert "| as they must be | 1 |" in text
    assert "| double runs | 1 |" in text
    assert "| lost pages | 3 |" in text
    assert lost_pages(seen) == document(seen, run)["lost_pages"] == 3


def test_only_what_is_between_the_markers_is_replaced() -> None:
    assert between_markers(f"a\n{BEGIN}\nold\n{END}\nz\n", "new") == f"a\n{BEGIN}\nnew\n{END}\nz\n"
    with pytest.raises(ValueError, match="has no"):
        between_markers("a", "new")
