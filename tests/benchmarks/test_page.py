"""The page and the JSON of a run, and that the real table can be read out of any run."""

import json

import pytest

from benchmarks.beside.measures import NONE, Run
from benchmarks.beside.page import BEGIN, END, between_markers, document, missed, tables
from benchmarks.beside.prediction import Expectation, Prediction
from benchmarks.beside.prediction_grid import GRID
from benchmarks.beside.sample import Sample
from benchmarks.beside.scenarios import IPERF, SCENARIOS
from benchmarks.beside.table import MEASURES

ABOUT: dict[str, object] = {"date": "2026-11-21", "CPUs": 2}


def everything(turns: int) -> Run:
    """Return a run in which all take the same time."""
    played = {}
    for scenario in SCENARIOS:
        names = [*(mode.name for mode in scenario.ours), *(mode.name for mode in scenario.peers)]
        made = [
            Sample(
                who=name, turn=turn, outcome="completed", total_ms=100.0, downtime_ms=10.0, bulk_ms=50.0,
                wire_bytes=1 << 20, cpu_seconds=1.0, agent_bytes=100 << 20,
            )
            for turn in range(turns + 1)
            for name in names
        ]  # fmt: skip
        if scenario.iperf:
            made += [Sample(who=IPERF, turn=turn, outcome="completed", bytes_per_s=1e9) for turn in range(turns + 1)]
        played[scenario.name] = made
    came_true = Expectation(100.0, 90.0, 110.0, 100.0)
    return Run(played, [Prediction(run=one.name, completed=True, total=came_true, downtime=came_true) for one in GRID])


def test_every_row_of_the_table_can_be_read_out_of_what_the_scenarios_give() -> None:
    run = everything(5)
    readings = {measure.scenario: measure.read(run) for measure in MEASURES}
    assert [name for name, reading in readings.items() if not reading.values] == []


def test_no_two_rows_have_one_name() -> None:
    names = [measure.scenario for measure in MEASURES]
    assert len(names) == len(set(names))


def test_a_run_of_nothing_says_so_in_every_row_and_misses_none() -> None:
    assert tables(Run(), MEASURES, ABOUT).count("not measured") == len(MEASURES)
    assert missed(Run(), MEASURES) == []


def test_a_whole_run_misses_what_it_did_not_measure() -> None:
    must = [measure.scenario for measure in MEASURES if measure.must != NONE]
    assert missed(Run(), MEASURES, whole=True) == must


def test_what_is_missed_is_named() -> None:
    run = everything(2)
    assert any("total time, `grpc`" in name for name in missed(run, MEASURES))


def test_the_document_holds_every_sample_and_every_row() -> None:
    run = everything(2)
    told = json.loads(json.dumps(document(run, MEASURES, ABOUT)))
    assert len(told["rows"]) == len(MEASURES)
    assert {name: len(found) for name, found in told["samples"].items()} == {
        n: len(found) for n, found in run.scenarios.items()
    }
    assert len(told["predictions"]) == len(GRID)
    assert told["date"] == "2026-11-21"


def test_each_row_of_a_table_has_the_columns_of_its_head() -> None:
    blocks = [block.splitlines() for block in tables(everything(2), MEASURES, ABOUT).split("\n\n")[1:]]
    for head, *lines in blocks:
        assert {line.count("|") for line in lines} == {head.count("|")}


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert between_markers(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(ValueError, match="has no"):
        between_markers("a page without", "new")
