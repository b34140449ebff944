"""What carrying QEMU's own migration costs, from samples that never were: whose time is held against whose."""

import msgspec
import pytest

from benchmarks import qemu_machines
from benchmarks.__main__ import NAMES, QEMU_PAGE, RESULTS
from benchmarks.beside.sample import Sample
from benchmarks.beside.scenarios import (
    BY_ITSELF,
    BY_ITSELF_BY_TWO,
    CARRIED,
    CARRIED_BY_TWO,
    CARRIED_OPENLY,
    CARRIED_OPENLY_BY_TWO,
    MULTIFD_2,
    MULTIFD_AS_STARTED,
    PLAIN,
    PLAIN_READY,
    QEMU_GIGABIT,
    QEMU_LOOPBACK,
    SECURED,
)
from benchmarks.reliability_page import BEGIN, END, read, table

TURNS = 3
MS = {
    CARRIED.name: 120.0, CARRIED_BY_TWO.name: 190.0, CARRIED_OPENLY.name: 100.0, CARRIED_OPENLY_BY_TWO.name: 220.0,
    PLAIN.name: 100.0, PLAIN_READY.name: 40.0,
    MULTIFD_AS_STARTED.name: 100.0, MULTIFD_2.name: 20.0, BY_ITSELF.name: 103.0, BY_ITSELF_BY_TWO.name: 130.0,
    SECURED[0].name: 100.0, SECURED[1].name: 104.0,
}  # fmt: skip
READY_MS = 10.0


def played() -> dict[str, list[Sample]]:
    """Return a run in which ours get ready before they begin, and stand still for a quarter of it all."""
    made: dict[str, list[Sample]] = {}
    for scenario in (QEMU_LOOPBACK, QEMU_GIGABIT):
        names = [*(mode.name for mode in scenario.ours), *(mode.name for mode in scenario.peers)]
        made[scenario.name] = [
            Sample(
                who=who, turn=turn, outcome="completed", total_ms=MS[who], ready_ms=READY_MS, downtime_ms=MS[who] / 4
            )
            for turn in range(TURNS + 1)
            for who in names
        ]
    return made


def test_each_total_is_held_against_the_other_one_of_its_turn() -> None:
    rows = qemu_machines.rows_of(played())
    ratios = [row.values for row in rows if row.unit == "ratio"]
    expected = (1.1, 2.3, 1.3, 2.0, 2.5, 11.0, 3.0, 9.5, 1.03, 1.25, 3.0)
    assert ratios == [(each,) * TURNS for each in expected]
    reached = [True, False, True, True, None, None, None, None, True, False, False]
    assert [row.reached for row in rows if row.unit == "ratio"] == reached
    assert {row.name for row in rows} == set(qemu_machines.PAGE_ROWS["qemu"])


def test_the_page_shows_what_the_results_say() -> None:
    shown = QEMU_PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip("\n")
    assert shown == table(read(RESULTS), qemu_machines.PAGE_ROWS), 'make bench ARGS="--only qemu" writes it'
    assert set(qemu_machines.PAGE_ROWS) <= set(NAMES)


def test_downtime_is_what_comes_on_top() -> None:
    here, there = (row for row in qemu_machines.rows_of(played()) if row.unit == "ms")
    assert (here.values, here.reached, there.reached) == ((20.0,) * TURNS, True, None)


@pytest.mark.parametrize("who", [CARRIED.name, PLAIN_READY.name])
def test_a_movement_that_did_not_complete_is_no_measure(who: str) -> None:
    samples = played()
    bad = next(at for at, each in enumerate(samples[QEMU_GIGABIT.name]) if each.who == who and each.turn == 1)
    failed = msgspec.structs.replace(samples[QEMU_GIGABIT.name][bad], outcome="failed", why="it broke")
    samples[QEMU_GIGABIT.name][bad] = failed
    with pytest.raises(RuntimeError, match="it broke"):
        qemu_machines.rows_of(samples)
