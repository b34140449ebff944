"""The judge and its evidence, on what never happened: each lie is found, and the truth is not complained of."""

import msgspec
import pytest

from tests.faults.asleep import written_by_its_guest
from tests.faults.expected import Ending, Moment, Stage, expected, outcomes
from tests.faults.expected_updates import expected_of_update
from tests.faults.judgement import judge
from tests.faults.matrix import boundaries, chosen
from tests.faults.observation import Diagnosis, Observation, SecondAttempt
from tests.faults.report import BEGIN, END, between_markers, document, lost_pages, tables
from tests.faults.rows import AGENTS, BOUNDARIES, QEMUS, Back, Deed, Ordered, Row, Victim, When, parse, possible
from tests.system.attempts import specification

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


def update(source: str, *, succeeded: bool = False, waits: bool = False) -> Moment:
    started = bool(source)
    return Moment(source=source, destination="", whole=False, started=started, succeeded=succeeded, waits=waits)


def named(*, waits: bool) -> Moment:
    """The new process is the machine's; nothing has run while it waits."""
    return update("RECLAIMED", succeeded=True, waits=waits)


def test_what_is_as_it_must_be_is_not_complained_of() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"double_runs": ("both ran",)}, "double run"),
        ({"differing_pages": 1}, "pages differ"),
        ({"mismatched": 2}, "mismatched"),
        ({"guest_errors": 1}, "errors"),
        ({"undone": ("1 job after 2",)}, "undone"),
        ({"works_on": False}, "no work any more"),
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


@pytest.mark.parametrize(
    ("row", "at", "endings"),
    [
        ("transfer:kill:source-vmm:preflight:never", update(""), {"died"}),
        ("transfer:kill:source-vmm:switching:never", update("OUTGOING"), {"lost"}),
        ("transfer:kill:source-vmm:ready:never", update("OUTGOING"), {"lost", "completed"}),
        ("transfer:kill:source-vmm:releasing:never", update("STOPPED"), {"completed"}),
        ("transfer:kill:destination-vmm:ready:never", update("OUTGOING"), {"stayed"}),
        ("transfer:kill:destination-vmm:releasing:never", update("RELEASED"), {"stayed", "lost", "died"}),
        ("transfer:kill:destination-vmm:resuming:never", update("RECLAIMED", succeeded=True), {"died", "lost"}),
        ("transfer:kill:source-vfio-host:releasing:never", update("STOPPED"), {"lost"}),
        ("transfer:kill:source-agent:ready:soon", update("OUTGOING"), {"stayed"}),
        ("transfer:kill:source-agent:releasing:soon", update("RELEASED"), {"completed"}),
        ("transfer:freeze:source-agent:ready:late", update("OUTGOING"), {"stayed", "completed"}),
        ("transfer:freeze:source-vmm:releasing:late", update("STOPPED"), {"completed"}),
        ("transfer:freeze:destination-vmm:releasing:late", update("RELEASED"), {"completed"}),
        ("transfer:kill:cli:prepared:never", update("OUTGOING"), {"completed"}),
        ("transfer:kill:leader:preflight:soon", update(""), {"stayed", "completed"}),
        ("transfer:freeze:destination-agent:prepared:late", update("OUTGOING"), {"completed"}),
        ("exec:kill:source-vmm:resuming:never", update("OUTGOING"), {"lost"}),
        ("exec:kill:destination-vmm:prepared:never", update("OUTGOING"), {"stayed", "completed"}),
        ("exec:kill:source-agent:resuming:soon", update("OUTGOING"), {"stayed"}),
        ("exec:kill:source-agent:1.000s:soon", update("RELEASED"), {"completed"}),
        ("reboot:kill:source-vmm:preflight:never", update(""), {"died"}),
        ("reboot:kill:source-vmm:switching:never", update("OUTGOING"), {"lost"}),
        ("reboot:kill:source-vfio-host:ready:never", update("OUTGOING", waits=True), {"lost", "completed"}),
        ("reboot:kill:source-vmm:releasing:never", update("STOPPED", waits=True), {"completed"}),
        ("reboot:kill:destination-vmm:starting:never", update("RELEASED", waits=True), {"completed"}),
        ("reboot:kill:destination-vfio-host:resuming:never", named(waits=True), {"completed"}),
        ("reboot:kill:destination-vmm:resuming:never", named(waits=False), {"died", "lost"}),
        ("reboot:kill:source-agent:switching:soon", update("OUTGOING"), {"stayed"}),
        ("reboot:kill:source-agent:releasing:soon", update("STOPPED", waits=True), {"stayed"}),
        ("reboot:kill:source-agent:starting:soon", update("RELEASED", waits=True), {"completed"}),
        ("reboot:freeze:source-vmm:releasing:late", update("STOPPED", waits=True), {"completed"}),
        ("reboot:kill:orchestrator:switching:soon", update("OUTGOING"), {"completed"}),
        ("reboot:cancel:attempt:ready:never", update("OUTGOING", waits=True), {"stayed", "completed"}),
        ("reboot:cancel:attempt:starting:never", update("RELEASED", waits=True), {"completed"}),
    ],
)
def test_what_may_follow_in_an_update_is_what_its_page_says(row: str, at: Moment, endings: set[str]) -> None:
    assert {ending.value for ending in expected_of_update(parse(row), [at, at])} == endings


def test_every_row_at_every_stage_may_come_to_something_and_never_to_a_broken_state() -> None:
    stages = [moment("OUTGOING"), moment("STOPPED", "PREPARED"), READY, moment("RELEASED", "READY", whole=True)]
    for row in boundaries(cables=True):
        for at in stages:
            found = expected_of_update(row, [at]) if row.updates else expected(row, [at])
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


def test_who_cancels_is_told_that_it_was_cancelled_where_the_machine_stayed() -> None:
    row = parse("reboot:cancel:attempt:switching:never")
    assert outcomes(row, Ending.STAYED) == {"cancelled"}
    assert outcomes(row, Ending.COMPLETED) == {"completed"}


def test_ram_that_is_not_what_it_was_when_the_guest_fell_asleep_is_said() -> None:
    seen = changed(
        row="reboot:kill:source-vmm:releasing:never",
        moments=(update("STOPPED", waits=True),) * 2,
        second=SecondAttempt(
            destination="host-a", outcome="completed", error="", pages=0, pages_verified=0, pages_mismatched=0
        ),
    )
    assert judge(seen) == []
    assert "the guest that slept" in judge(msgspec.structs.replace(seen, differing_pages=1))[0]


def test_a_guest_writes_where_it_works_and_nowhere_else() -> None:
    pages = written_by_its_guest(specification("m1", guest_working_set="24MiB"))
    written = {page for each in pages for page in each}
    assert not {*range(256), *range(5 * 256, 8 * 256)} & written
    assert 24 * 256 < len(written) < 50 * 256
    assert max(written) < 64 * 256


def test_rows_are_read_back_as_they_are_written() -> None:
    rows = chosen(300, 7, cables=True)
    assert [parse(str(row)) for row in rows] == rows
    assert chosen(300, 7, cables=True) == rows
    assert all(possible(row) for row in rows)
    assert len(rows) == 300
    assert {row.ordered for row in rows} == set(Ordered)
    assert {row.ordered for row in chosen(40, 7, cables=True, ordered=[Ordered.EXEC])} == {Ordered.EXEC}


def test_without_cables_nothing_is_cut() -> None:
    assert all(row.deed is not Deed.CUT for row in chosen(300, 7, cables=False))


@pytest.mark.parametrize(
    "text",
    [
        "kill",
        "kill:nobody:ready:never",
        "cut:cli:ready:late",
        "kill:cli:ready:soon",
        "kill:source-agent:switching:soon",
        "exec:kill:source-agent:ready:soon",
        "exec:kill:destination-vmm:resuming:never",
        "transfer:cut:source:ready:late",
        "reboot:kill:source-agent:prepared:soon",
        "reboot:kill:source-vmm:starting:never",
        "reboot:kill:attempt:ready:never",
        "reboot:cancel:orchestrator:ready:never",
        "reboot:cancel:attempt:ready:soon",
        "cancel:attempt:ready:never",
        "transfer:kill:destination-vfio-host:ready:never",
        "qemu:kill:source-vmm:ready:never",
        "qemu-multifd:freeze:source-agent:ready:late",
        "qemu-newer:kill:source-agent:starting:soon",
        "qemu-multifd:kill:source-agent:pre-copy:late",
        "qemu-direct:kill:source-agent:ready:late",
        "qemu-newer-direct:kill:destination-agent:pre-copy:late",
    ],
)
def test_what_cannot_happen_is_no_row(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


def test_either_agent_of_a_qemu_s_move_is_killed_at_each_of_its_boundaries() -> None:
    rows = list(boundaries(cables=False))
    for ordered in QEMUS:
        for victim in AGENTS:
            struck = {row.when for row in rows if (row.ordered, row.victim) == (ordered, victim)}
            assert struck == set(BOUNDARIES[ordered]), (ordered, victim)


def test_a_qemu_s_row_says_which_program_goes_how() -> None:
    said = {ordered.value: Row(Deed.KILL, Victim.SOURCE_AGENT, When.PRE_COPY, Back.SOON, ordered) for ordered in QEMUS}
    assert len(said) == 8
    for name, row in said.items():
        assert (row.newer, row.direct, row.streams) == (
            "newer" in name,
            "direct" in name,
            2 if "multifd" in name else 1,
        )
    assert {row for row in boundaries(cables=False) if row.qemu and row.back is not Back.SOON} == {
        Row(Deed.KILL, Victim.SOURCE_AGENT, when, Back.LATE, ordered)
        for when in (When.PRE_COPY, When.STOPPING)
        for ordered in QEMUS
        if "direct" in ordered
    }


def test_every_victim_and_every_boundary_is_in_the_matrix() -> None:
    rows = list(boundaries(cables=True))
    assert {row.victim for row in rows} == set(Victim)
    assert {row.when for row in rows} == set(When)
    assert {row.deed for row in rows} == set(Deed)
    for ordered in Ordered:
        assert {row.when for row in rows if row.ordered is ordered} == set(BOUNDARIES[ordered])


def test_the_table_counts_what_was_observed() -> None:
    seen = [GOOD, changed(differing_pages=3), changed(double_runs=("both ran",), row="freeze:source-vmm:ready:late")]
    run: dict[str, object] = {"date": "d", "cpus": 2, "kernel": "k", "lanes": 1, "minutes": 1, "seed": 1}
    seen.append(changed(row="exec:kill:source-agent:prepared:soon", moments=(update("OUTGOING"),), ending="broken"))
    text = tables(seen, run)
    assert "| update, exec: kill | source-agent | 1 | 0 | 0 | 0 | 0 | 0 | 1 |" in text
    assert "| faults injected into real processes | 4 |" in text
    assert "| as they must be | 1 |" in text
    assert "| double runs | 1 |" in text
    assert "| lost pages | 3 |" in text
    assert lost_pages(seen) == document(seen, run)["lost_pages"] == 3


def test_only_what_is_between_the_markers_is_replaced() -> None:
    assert between_markers(f"a\n{BEGIN}\nold\n{END}\nz\n", "new") == f"a\n{BEGIN}\nnew\n{END}\nz\n"
    with pytest.raises(ValueError, match="has no"):
        between_markers("a", "new")
