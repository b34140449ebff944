"""The measured rows of docs/update.md: what the results say, what others say of theirs, and nothing else."""

from benchmarks import update
from benchmarks.__main__ import NAMES, RESULTS, UPDATE_PAGE
from benchmarks.reliability_page import BEGIN, END, read, table


def test_the_page_shows_what_the_results_say() -> None:
    shown = UPDATE_PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip("\n")
    written = table(read(RESULTS), update.PAGE_ROWS)
    assert shown == f"{written}\n{update.PUBLISHED}", 'make bench ARGS="--only update" writes it'


def test_what_fills_the_table_can_be_run_and_a_figure_of_others_has_its_source() -> None:
    assert set(update.PAGE_ROWS) <= set(NAMES)
    assert "](https://github.com/cloud-hypervisor/cloud-hypervisor/issues/3566)" in update.PUBLISHED
