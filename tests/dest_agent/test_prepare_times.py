"""How long the next preparation takes: as the last ones did."""

import pytest

from dest_agent.prepare_times import PrepareTime, PrepareTimes
from vm_migration.transfer.forecast import prepare_ms_expected

GIB = 1 << 30


def test_before_the_first_preparation_the_time_is_assumed() -> None:
    assert PrepareTimes().expected_ms(GIB) == prepare_ms_expected(GIB)


def test_a_larger_machine_takes_longer_to_touch_and_as_long_to_launch() -> None:
    times = PrepareTimes()
    times.note("one", PrepareTime(GIB, 700, 500))
    assert times.expected_ms(GIB) == pytest.approx(1200)
    assert times.expected_ms(4 * GIB) == pytest.approx(2700)


def test_one_slow_preparation_among_several_changes_little() -> None:
    times = PrepareTimes()
    for number, touch_ms in enumerate((500, 9000, 510)):
        times.note(str(number), PrepareTime(GIB, 700, touch_ms))
    assert times.expected_ms(GIB) == pytest.approx(1210)


def test_a_preparation_that_is_asked_for_again_counts_once() -> None:
    times = PrepareTimes()
    times.note("slow", PrepareTime(GIB, 700, 9000))
    for _ in range(5):
        times.note("quick", PrepareTime(GIB, 700, 500))
    assert times.expected_ms(GIB) == pytest.approx(700 + 9500 / 2)


def test_old_preparations_are_forgotten() -> None:
    times = PrepareTimes()
    for number in range(20):
        times.note(str(number), PrepareTime(GIB, 700, 9000 if number < 12 else 500))
    assert times.expected_ms(GIB) == pytest.approx(1200)


def test_a_trial_says_more_of_memory_than_what_was_touched_of_late() -> None:
    times = PrepareTimes()
    assert times.expected_ms(GIB, 100 / GIB) == pytest.approx(prepare_ms_expected(0) + 100)
    times.note("one", PrepareTime(GIB, 700, 9000))
    assert times.expected_ms(2 * GIB, 100 / GIB) == pytest.approx(900)
