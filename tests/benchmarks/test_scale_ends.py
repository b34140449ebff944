"""Whether machines are where their evacuation says, of what the sources wrote down."""

from dataclasses import dataclass

import pytest

from benchmarks.scale.told import misplaced
from orchestrator.attempt import Outcome


@dataclass(frozen=True)
class Move:
    attempts: tuple[str, ...]
    outcome: Outcome | None


@pytest.mark.parametrize(
    ("outcome", "arrived", "wrong"),
    [
        (Outcome.COMPLETED, {"b": 1}, False),
        (Outcome.CANCELLED, {}, False),
        (Outcome.COMPLETED, {}, True),
        (Outcome.CANCELLED, {"b": 1}, True),
        (None, {"a": 1}, True),
        (Outcome.COMPLETED, {"a": 1, "b": 1}, True),
        (Outcome.COMPLETED, {"b": 2}, True),
        (Outcome.FAILED, {"of another": 1}, False),
    ],
)
def test_a_machine_that_moved_once_and_is_said_to_have_moved_is_where_it_should_be(
    outcome: Outcome | None, arrived: dict[str, int], wrong: bool
) -> None:
    assert misplaced(Move(("a", "b"), outcome), arrived) == wrong
