"""What a host may write about a machine that waits in files: who has it next, and when nobody else may."""

import msgspec
import pytest

from vm_migration.errors import Refused
from vm_migration.handover.evidence import InstanceGone, Process
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.handover.succession import successor_view, went_over, woken

MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
WAITS = '{"update": {"mode": "reboot", "predecessor": "old", "waits": "/dax/ram.suspended"}}'
RELEASED = Record(
    machine=MACHINE,
    state=State.RELEASED,
    highest_epoch=4,
    owned_epoch=3,
    released_epoch=4,
    attempt="7",
    epoch=4,
    pause=2,
    was_running=True,
    instance="old",
    policy=WAITS,
)


def test_a_released_machine_is_reclaimed_in_the_process_that_was_started_from_its_files() -> None:
    found = woken(RELEASED, successor="new", gone=InstanceGone("old"))
    assert (found.state, found.instance) == (State.RECLAIMED, "new")
    assert (found.owned_epoch, found.highest_epoch, found.run_confirmed) == (5, 5, False)


@pytest.mark.parametrize("state", [State.RECLAIMED, State.ABORTED])
def test_a_process_that_ended_before_it_ran_is_followed_by_another_in_the_same_state(state: State) -> None:
    before = msgspec.structs.replace(RELEASED, state=state, owned_epoch=5, instance="new")
    found = woken(before, successor="newer", gone=InstanceGone("new"))
    assert found == msgspec.structs.replace(before, instance="newer")


@pytest.mark.parametrize(
    "changes",
    [
        {"state": State.RECLAIMED, "run_confirmed": True},  # the guest has run, and the files are gone
        {"policy": '{"update": {"mode": "transfer", "predecessor": "old", "successor": "new"}}'},
        {"policy": ""},
        {"state": State.STOPPED},
        {"state": State.OUTGOING},
        {"state": State.LOST},
    ],
)
def test_nobody_else_is_woken(changes: dict[str, object]) -> None:
    with pytest.raises(Refused):
        woken(msgspec.structs.replace(RELEASED, **changes), successor="new", gone=InstanceGone("old"))


def test_the_process_before_is_proven_gone() -> None:
    with pytest.raises(Refused):
        woken(RELEASED, successor="new", gone=InstanceGone("another"))


@pytest.mark.parametrize("process", list(Process))
def test_files_are_seen_as_an_image_that_is_whole(process: Process) -> None:
    seen = successor_view(RELEASED, process)
    assert (seen.sight, seen.process, seen.pause, seen.whole) == (State.READY, process, 2, True)
    assert not went_over(RELEASED)
