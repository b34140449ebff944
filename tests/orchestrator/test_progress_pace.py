"""How often figures are told, of few attempts and of many."""

import pytest

from orchestrator.progress_pace import MOST_A_SECOND, ProgressPace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(attempts: int, seconds: int) -> list[str]:
    """Return whose figures were told, of so many attempts that report once a second."""
    clock = Clock()
    pace, found = ProgressPace(clock), list[str]()
    for _ in range(seconds):
        found += [name for name in map(str, range(attempts)) if pace.due(name)]
        clock.now += 1.0
    return found


def test_the_figures_of_a_few_are_told_whenever_they_come() -> None:
    assert len(told(MOST_A_SECOND, 7)) == 7 * MOST_A_SECOND


@pytest.mark.parametrize("times", [2, 3, 10])
def test_many_take_turns_and_none_is_left_out(times: int) -> None:
    seconds = 6 * times
    found = told(times * MOST_A_SECOND, seconds)
    assert len(found) <= (seconds + times) * MOST_A_SECOND
    assert {name: found.count(name) for name in found} == dict.fromkeys(map(str, range(times * MOST_A_SECOND)), 6)


def test_who_has_ended_takes_no_turn() -> None:
    clock = Clock()
    pace = ProgressPace(clock)
    names = [str(number) for number in range(2 * MOST_A_SECOND)]
    assert all(pace.due(name) for name in names)
    assert not pace.due("0")
    for name in names[MOST_A_SECOND:]:
        pace.over(name)
    assert pace.due("0")
