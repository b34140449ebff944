"""The measured rows of docs/reliability.md: what the results say, and nothing else."""

from pathlib import Path

import msgspec
import pytest

from benchmarks import __main__ as measuring
from benchmarks import security
from benchmarks.__main__ import NAMES, PAGE, RESULTS
from benchmarks.figures import Row
from benchmarks.reliability_page import BEGIN, END, Machine, MeasuredRow, Results, read, table
from benchmarks.reliability_page import NAMES as MEASUREMENTS

ROW = security.OURS_OVER_ITSELF


def results(date: str, *values: float, must: float = 0.6) -> Results:
    told = msgspec.convert(Row(ROW, "ratio", values, must=must).document(), MeasuredRow)
    return Results(f"{date}T01:02:03+00:00", Machine(2, "6.1"), (told,))


def line(*told: Results) -> str:
    (found,) = [each for each in table(told).splitlines() if each.startswith(f"| {ROW} |")]
    return found


def test_the_page_shows_what_the_results_say() -> None:
    page = PAGE.read_text()
    shown = page.partition(BEGIN)[2].partition(END)[0].strip("\n")
    assert shown == table(read(RESULTS)), 'make bench ARGS="--only NAME" writes it'


def test_a_row_has_what_was_measured_last() -> None:
    assert line(results("2026-01-01", 0.5), results("2026-01-02", 0.7, 0.9, 0.8)) == (
        f"| {ROW} | 0.6 | 0.8 | 0.7 to 0.9, n=3 | 2026-01-02, 2 CPUs, 6.1 |"
    )


def test_a_row_that_is_missed_says_so() -> None:
    assert line(results("2026-01-01", 0.5)).startswith(f"| {ROW} | 0.6: MISSED | 0.5 |")


def test_a_row_that_was_never_measured_says_how_it_is() -> None:
    assert line() == f'| {ROW} | | | | not measured yet: `make bench ARGS="--only security"` |'


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_what_fills_the_table_can_be_run(name: str) -> None:
    assert name in NAMES


def test_what_was_measured_is_written_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    monkeypatch.setattr(measuring, "PAGE", page)
    for value in (0.5, 0.75):
        measuring.write([Row(ROW, "ratio", (value,), must=0.6), Row(f"another at {value}", "s", (value,))])
    (told,) = read(tmp_path)
    assert sorted(row.name for row in told.rows) == sorted([ROW, "another at 0.5", "another at 0.75"])
    assert f"| {ROW} | 0.6 | 0.75 |" in page.read_text()
    assert (page.read_text().startswith("before\n"), page.read_text().endswith("after\n")) == (True, True)
