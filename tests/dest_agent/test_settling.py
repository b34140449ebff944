"""What becomes of an arrival: activated on the secret, given up on proof, owned up to where it is gone."""

from pathlib import Path

import pytest

from dest_agent.settling import end, take_over
from tests.dest_agent.arrivals import SECRET, A, arriving, made_ready, whole
from tests.fakes.fake_machine import MACHINE, Held
from vm_migration.errors import AttemptFailed, Refused, Unauthorised, Unresolved
from vm_migration.handover.evidence import Absence, SideView
from vm_migration.handover.journal import read_last
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineGone

STOPPED = SideView(A, State.STOPPED, pause=1)


def durable(machine: Held) -> State:
    return read_last(machine.folder / "journal", MACHINE).state


async def test_activating_is_durable_before_the_guest_runs_and_active_after(tmp_path: Path) -> None:
    with arriving(tmp_path, State.READY) as machine:
        seen = []
        machine.machine.before_run = lambda: seen.append(durable(machine))
        assert await take_over(machine.custody, 1, SECRET) == 17
        assert seen == [State.ACTIVATING]
        assert durable(machine) is State.ACTIVE
        assert machine.machine.calls == ["run 2"]


async def test_asked_again_it_does_nothing(tmp_path: Path) -> None:
    with arriving(tmp_path, State.ACTIVE) as machine:
        machine.machine.running = False  # somebody paused it since
        assert await take_over(machine.custody, 1, SECRET) == 0
        assert machine.machine.calls == []


@pytest.mark.parametrize("secret", [b"", bytes(32), SECRET[:-1]])
async def test_nothing_but_the_secret_activates(tmp_path: Path, secret: bytes) -> None:
    with arriving(tmp_path, State.READY) as machine:
        with pytest.raises(Unauthorised):
            await take_over(machine.custody, 1, secret)
        assert (durable(machine), machine.machine.calls) == (State.READY, [])


async def test_nor_at_another_stop_or_before_ready(tmp_path: Path) -> None:
    with arriving(tmp_path, State.READY) as machine:
        with pytest.raises(Refused):
            await take_over(machine.custody, 2, SECRET)
        assert durable(machine) is State.READY
    with arriving(tmp_path / "other", State.PREPARED, whole) as machine:
        with pytest.raises(Refused):
            await take_over(machine.custody, 1, SECRET)
        assert durable(machine) is State.PREPARED


async def test_an_image_that_is_gone_is_lost_and_never_activating(tmp_path: Path) -> None:
    with arriving(tmp_path, State.READY) as machine:
        machine.machine.end()
        assert await take_over(machine.custody, 1, SECRET) == 0
        assert durable(machine) is State.LOST
        assert not machine.directory.path.exists()
        assert await take_over(machine.custody, 1, SECRET) == 0


async def test_a_process_that_went_while_it_was_activated_is_for_a_person(tmp_path: Path) -> None:
    with arriving(tmp_path, State.ACTIVATING) as machine:
        machine.machine.end()
        with pytest.raises(Unresolved) as caught:
            await take_over(machine.custody, 1, SECRET)
        assert "recover --fenced" in caught.value.hint
        assert durable(machine) is State.ACTIVATING


async def test_a_silent_process_is_started_when_it_answers(tmp_path: Path) -> None:
    with arriving(tmp_path, State.READY) as machine:
        machine.machine.silent = 1
        with pytest.raises(MachineGone):
            await take_over(machine.custody, 1, SECRET)
        assert durable(machine) is State.ACTIVATING
        await take_over(machine.custody, 1, SECRET)
        assert durable(machine) is State.ACTIVE


@pytest.mark.parametrize("state", [State.PREPARED, State.READY])
@pytest.mark.parametrize("sight", [State.ABORTED, State.LOST, Absence.PASSED])
async def test_an_end_at_the_source_discards(tmp_path: Path, state: State, sight: State | Absence) -> None:
    with arriving(tmp_path, state) as machine:
        assert (await end(machine.custody, SideView(A, sight, pause=1), "over", None)).state is State.DISCARDED
        assert machine.machine.calls == ["destroy"]
        assert not machine.directory.path.exists()


@pytest.mark.parametrize("sight", [State.OUTGOING, State.RELEASED, State.RETIRED, Absence.NOTHING, Absence.UNREACHABLE])
async def test_nothing_else_does(tmp_path: Path, sight: State | Absence) -> None:
    with arriving(tmp_path, State.READY) as machine:
        with pytest.raises(Refused):
            await end(machine.custody, SideView(A, sight), "over", None)
        assert (durable(machine), machine.machine.calls) == (State.READY, [])


async def test_a_ready_image_stays_ready_for_a_source_that_died_at_its_stop(tmp_path: Path) -> None:
    with arriving(tmp_path, State.READY) as machine:
        assert (await end(machine.custody, STOPPED, "died", None)).state is State.READY
        assert machine.directory.path.exists()


async def test_an_image_that_is_gone_is_owned_up_to(tmp_path: Path) -> None:
    with arriving(tmp_path, State.READY) as machine:
        machine.machine.end()
        assert (await end(machine.custody, STOPPED, "died", None)).state is State.LOST


async def test_what_is_not_whole_is_given_up_for_a_source_that_died(tmp_path: Path) -> None:
    with arriving(tmp_path, State.PREPARED) as machine:
        assert (await end(machine.custody, STOPPED, "died", None)).state is State.DISCARDED


async def test_what_is_whole_is_finished_for_a_source_that_died(tmp_path: Path) -> None:
    with arriving(tmp_path, State.PREPARED, whole) as machine:

        async def finish() -> None:
            await machine.custody.write(made_ready)

        assert (await end(machine.custody, STOPPED, "died", finish)).state is State.READY
        assert machine.directory.path.exists()


async def test_what_is_whole_and_cannot_be_finished_is_given_up(tmp_path: Path) -> None:
    with arriving(tmp_path, State.PREPARED, whole) as machine:

        async def finish() -> None:
            raise AttemptFailed("load-failed", "A device refused its state")

        assert (await end(machine.custody, STOPPED, "died", finish)).state is State.DISCARDED
