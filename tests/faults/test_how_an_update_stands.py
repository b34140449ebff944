"""What is said of an updated machine by its journal, and by the process that its directory names."""

import msgspec
import pytest

from tests.faults.expected import Ending
from tests.faults.updated import stands
from vm_migration.handover.record import Record
from vm_migration.handover.states import State

OWNED = Record(
    machine="0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01",
    state=State.RECLAIMED,
    highest_epoch=3,
    owned_epoch=3,
    released_epoch=2,
    attempt="7",
    epoch=2,
    pause=1,
    was_running=True,
    instance="new",
    policy='{"update": {"mode": "reboot", "predecessor": "old", "successor": "new"}}',
)


@pytest.mark.parametrize(("alive", "runs"), [(False, False), (True, True)])
def test_nothing_is_said_while_the_directory_names_the_process_before_the_one_of_the_journal(
    alive: bool, runs: bool
) -> None:
    assert stands(OWNED, "old", alive=alive, runs=runs) is Ending.BROKEN


@pytest.mark.parametrize(
    ("named", "alive", "runs", "ending"),
    [
        ("new", True, True, Ending.COMPLETED),
        ("new", True, False, Ending.BROKEN),
        ("new", False, False, Ending.DIED),
        (None, False, False, Ending.DIED),
    ],
)
def test_the_machine_is_as_its_process_is(named: str | None, alive: bool, runs: bool, ending: Ending) -> None:
    assert stands(OWNED, named, alive=alive, runs=runs) is ending


def test_a_machine_stays_in_the_process_that_it_had_and_may_be_lost() -> None:
    stayed = msgspec.structs.replace(OWNED, instance="old")
    assert stands(stayed, "old", alive=True, runs=True) is Ending.STAYED
    for state in (State.LOST, State.RELEASED):
        lost = msgspec.structs.replace(OWNED, state=state)
        assert stands(lost, "new", alive=True, runs=True) is (Ending.LOST if state is State.LOST else Ending.BROKEN)
