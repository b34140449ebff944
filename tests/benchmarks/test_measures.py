"""The table's figures from samples that never were: each comparison, and each thing that must not pass for one."""

import msgspec
import pytest

from benchmarks.beside.measures import (
    NONE,
    Measure,
    Reading,
    Run,
    beside,
    bytes_per_s,
    cpu_per_gib,
    own,
    predicted,
    share_within,
    total,
    whole,
)
from benchmarks.beside.prediction import Expectation, Prediction
from benchmarks.beside.sample import Sample

OURS, PLAIN, MULTIFD = "viaduct grpc", "QEMU plain", "QEMU multifd 2"


def sample(who: str, turn: int, total_ms: float = 100.0, **changes: object) -> Sample:
    made = Sample(who=who, turn=turn, outcome="completed", total_ms=total_ms, wire_bytes=1 << 30, cpu_seconds=2.0)
    return msgspec.structs.replace(made, **changes)


def run(*samples: Sample) -> Run:
    return Run({"loopback": list(samples)})


TURNS = [
    *(sample(OURS, turn, 100.0 * turn) for turn in (1, 2, 3)),
    *(sample(PLAIN, turn, 200.0) for turn in (1, 2, 3)),
    *(sample(MULTIFD, turn, 50.0 if turn == 1 else 400.0) for turn in (1, 2, 3)),
]


def test_a_figure_is_held_against_the_same_turn_of_the_peer_with_the_best_median() -> None:
    assert beside("loopback", OURS, [PLAIN, MULTIFD], total)(run(*TURNS)).values == (0.5, 1.0, 1.5)


def test_the_best_of_what_should_be_high_is_the_highest() -> None:
    read = beside("loopback", OURS, [PLAIN, MULTIFD], total, better="higher")
    assert read(run(*TURNS)).values == (2.0, 0.5, 0.75)


def test_getting_ready_counts_where_the_row_says_so_and_on_our_side_alone() -> None:
    samples = [sample(OURS, 1, 100.0, ready_ms=60.0), sample(PLAIN, 1, 200.0, ready_ms=500.0)]
    assert beside("loopback", OURS, [PLAIN], whole, total)(run(*samples)).values == (0.8,)


def test_the_turn_that_warms_up_does_not_count() -> None:
    samples = [sample(OURS, 0, 9000.0), sample(PLAIN, 0), sample(OURS, 1), sample(PLAIN, 1)]
    assert beside("loopback", OURS, [PLAIN], total)(run(*samples)).values == (1.0,)


@pytest.mark.parametrize("outcome", ["failed", "did not complete"])
def test_one_run_of_ours_that_does_not_complete_misses_the_row(outcome: str) -> None:
    samples = [sample(OURS, 1), sample(OURS, 2, outcome=outcome, why="broke"), sample(PLAIN, 1), sample(PLAIN, 2)]
    measure = Measure("row", PLAIN, 2.0, 1.0, beside("loopback", OURS, [PLAIN], total))
    reading = measure.read(run(*samples))
    assert measure.reached(reading) is False
    assert measure.verdict(reading) == "MISSED"
    assert "broke" in reading.words


def test_a_page_that_differs_misses_the_row() -> None:
    samples = [sample(OURS, 1, 1.0, mismatched_pages=1), sample(PLAIN, 1)]
    measure = Measure("row", PLAIN, 2.0, 1.0, beside("loopback", OURS, [PLAIN], total))
    assert measure.reached(measure.read(run(*samples))) is False


def test_an_option_that_is_refused_is_shown_as_not_offered_and_neither_reached_nor_missed() -> None:
    samples = [sample(OURS, 1, outcome="not offered"), sample(PLAIN, 1)]
    measure = Measure("row", PLAIN, 2.0, 1.0, beside("loopback", OURS, [PLAIN], total))
    reading = measure.read(run(*samples))
    assert (measure.reached(reading), measure.verdict(reading)) == (None, "not offered")


def test_a_scenario_that_was_not_played_is_not_measured() -> None:
    for read in (
        beside("other", OURS, [PLAIN], total),
        own(["loopback", "other"], OURS, total),
        share_within("other", OURS, 300),
    ):
        measure = Measure("row", PLAIN, 2.0, 1.0, read)
        assert measure.verdict(measure.read(run(sample(OURS, 1)))) == "not measured"


def test_completing_where_the_other_does_not_reaches_the_row() -> None:
    slow = [sample(PLAIN, turn, outcome="did not complete") for turn in (1, 2)]
    measure = Measure("row", PLAIN, 0.8, 0.5, beside("loopback", OURS, [PLAIN], total))
    assert measure.verdict(measure.read(run(sample(OURS, 1), sample(OURS, 2), *slow))) == "reached"


def test_a_peer_that_fails_is_no_success_of_ours() -> None:
    broken = sample(PLAIN, 1, outcome="failed")
    measure = Measure("row", PLAIN, 0.8, 0.5, beside("loopback", OURS, [PLAIN], total))
    assert measure.verdict(measure.read(run(sample(OURS, 1), broken))) == "not measured"


def test_the_share_within_a_limit_counts_runs_that_failed_as_outside_it() -> None:
    samples = [
        sample(OURS, 1, downtime_ms=300.0),
        sample(OURS, 2, downtime_ms=301.0),
        sample(OURS, 3, outcome="failed"),
        sample(OURS, 4, downtime_ms=20.0),
    ]
    reading = share_within("loopback", OURS, 300.0)(run(*samples))
    assert (reading.values, reading.words) == ((0.5,), "2 of 4")


def test_the_worst_value_counts_where_a_row_says_so() -> None:
    measure = Measure("memory", "-", 150, 80, own(["loopback"], OURS, total), worst=True)
    assert measure.judged(Reading((10.0, 20.0, 200.0))) == 200.0
    assert measure.verdict(Reading((10.0, 20.0, 200.0))) == "MISSED"


@pytest.mark.parametrize(("value", "words"), [(0.5, "aim reached"), (0.51, "reached"), (1.01, "MISSED")])
def test_a_verdict_follows_from_both_bounds(value: float, words: str) -> None:
    assert Measure("row", PLAIN, 1.0, 0.5, own(["loopback"], OURS, total)).verdict(Reading((value,))) == words


def test_a_row_that_only_aims_is_never_missed() -> None:
    measure = Measure("row", PLAIN, NONE, 0.5, own(["loopback"], OURS, total))
    assert measure.verdict(Reading((9.0,))) == "aim missed"
    assert measure.reached(Reading((9.0,))) is True


def test_rates_come_from_the_bulk_of_a_movement_and_processor_time_from_what_went_over_the_wire() -> None:
    assert bytes_per_s(sample(OURS, 1, bulk_ms=500.0)) == 2 << 30
    assert bytes_per_s(sample("iperf3", 1, bytes_per_s=7.0)) == 7.0
    assert cpu_per_gib(sample(OURS, 1)) == 2.0


def prediction(total: float, downtime: float, *, completed: bool = True) -> Prediction:
    return Prediction(
        run="one",
        completed=completed,
        total=Expectation(total, 0, 1e9, 100.0),
        downtime=Expectation(downtime, 0, 1, 100.0),
    )


def test_a_prediction_counts_when_it_is_off_by_no_more_than_a_share_of_the_outcome() -> None:
    told = Run(predictions=[prediction(125.0, 126.0), prediction(75.0, 74.0), prediction(100.0, 100.0)])
    assert predicted("total", 0.25, 3)(told).values == (3.0,)
    assert predicted("downtime", 0.25, 3)(told).values == (1.0,)


def test_a_run_that_did_not_complete_was_not_predicted() -> None:
    told = Run(predictions=[prediction(100.0, 100.0, completed=False), Prediction(run="two", completed=False)])
    assert predicted("total", 0.25, 2)(told).values == (0.0,)


def test_a_part_of_the_grid_is_no_measurement_of_it() -> None:
    assert predicted("total", 0.25, 2)(Run(predictions=[prediction(100.0, 100.0)])).words == "not measured"


def test_an_outcome_of_nothing_is_never_predicted() -> None:
    assert Expectation(0.0, 0.0, 0.0, 0.0).error == float("inf")
    assert not Expectation(5.0, 4.0, 6.0, 7.0).within_bounds
