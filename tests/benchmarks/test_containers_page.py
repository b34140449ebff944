"""The measured rows of docs/evacuation.md: what the results say, and how they come of the runs."""

from benchmarks import containers
from benchmarks.__main__ import EVACUATION_PAGE, NAMES, RESULTS
from benchmarks.reliability_page import BEGIN, END, read, table

RUN = containers.Run(20.0, 1_000_000_000, (100.0, 300.0), left=0, differed=0, errors=0)


def test_the_page_shows_what_the_results_say() -> None:
    shown = EVACUATION_PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip("\n")
    assert shown == table(read(RESULTS), containers.PAGE_ROWS), 'make bench ARGS="--only containers" writes it'
    assert set(containers.PAGE_ROWS) <= set(NAMES)


def test_time_is_held_against_what_the_bytes_take_on_the_link() -> None:
    rows = {row.name: row for row in containers.rows([RUN])}
    assert rows[containers.BESIDE].values == (20.0 / 16.0,)
    assert rows[containers.BESIDE].reached is True
    assert rows[containers.STOOD].values == (100.0, 300.0)


def test_one_machine_that_stays_or_one_page_that_differs_misses_the_measure() -> None:
    bad = containers.Run(20.0, 1_000_000_000, (), left=1, differed=2, errors=3)
    rows = {row.name: row for row in containers.rows([RUN, bad])}
    for name, count in ((containers.LEFT, 1), (containers.DIFFERED, 2), (containers.ERRORS, 3)):
        assert (rows[name].judged, rows[name].reached) == (count, False)
