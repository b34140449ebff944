"""A machine that is handed from one real process to another while its devices work in a third."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.vmm.update.machine_processes import (
    DEADLINE,
    Controller,
    NewProcess,
    handed_over,
    specification,
    waiting,
)
from vm_migration.machine.launch import launch, take_away
from vm_migration.machine.run_directory import MachineDirectory, RunDirectory
from vmm.process import control, update_requests
from vmm.process.control import Done, Paused, Refusal, Running


@pytest.fixture
async def directory(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[MachineDirectory]:
    """A machine that runs, on a backend, behind a vIOMMU or not."""
    backend, viommu = getattr(request, "param", ("iommufd", True))
    made = specification(backend=backend, enable_migration="on", viommu=viommu)
    started = await launch(RunDirectory(tmp_path), uuid4(), made, incoming=False)
    yield started
    await take_away(started, None)


@pytest.fixture
def old(directory: MachineDirectory) -> Iterator[Controller]:
    with Controller(directory.path / control.CONTROL_SOCKET) as controller:
        yield controller


@pytest.fixture
def new(directory: MachineDirectory) -> Iterator[NewProcess]:
    with waiting(directory) as made:
        yield made


def taken_over(old: Controller, new: NewProcess) -> tuple[Paused, Controller]:
    """Update as an agent does, up to the new process's first step; the old one is fenced."""
    paused = handed_over(old, new)
    controller = new.controller()
    assert old.ask(control.Release(epoch=1)) == Done()
    return paused, controller


@pytest.mark.parametrize(
    "directory", [(each, there) for each in ("iommufd", "type1") for there in (False, True)], indirect=True
)
def test_a_busy_machine_goes_on_in_another_process(
    old: Controller, new: NewProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    paused, controller = taken_over(old, new)
    with controller:
        before = old.describe()
        assert (before.run_state, before.handed_over) == ("paused", True)
        running = controller.ask(control.Run(epoch=2))
        assert isinstance(running, Running), running
        assert isinstance(old.ask(control.Run(epoch=1)), Refusal)
        assert old.ask(control.Destroy()) == Done()
        after = controller.works(30)
        assert after.guest.errors == 0
        assert after.pause == before.pause == paused.pause
        assert after.guest.jobs_done >= before.guest.jobs_done
        with capsys.disabled():
            sys.stdout.write(f"\nstandstill {(running.executed_ns - paused.last_executed_ns) / 1e6:.1f} ms\n")


@pytest.mark.parametrize("directory", [("iommufd", False), ("type1", True)], indirect=True)
def test_a_machine_that_was_updated_is_updated_again(
    directory: MachineDirectory, old: Controller, new: NewProcess
) -> None:
    _, controller = taken_over(old, new)
    with controller:
        assert isinstance(controller.ask(control.Run(epoch=2)), Running)
        old.ask(control.Destroy())
        (directory.path / control.NEXT_CONTROL_SOCKET).rename(directory.path / control.CONTROL_SOCKET)
        with waiting(directory) as third:
            handed_over(controller, third)
            with third.controller(epoch=3) as last:
                assert controller.ask(control.Release(epoch=2)) == Done()
                assert isinstance(last.ask(control.Run(epoch=3)), Running)
                controller.ask(control.Destroy())
                assert last.works(30).guest.errors == 0


@pytest.mark.parametrize("directory", [("iommufd", False), ("type1", True)], indirect=True)
def test_the_old_process_has_its_machine_again_when_the_new_one_dies_before_it_ran(
    old: Controller, new: NewProcess
) -> None:
    handed_over(old, new)
    new.process.kill()
    new.process.wait(DEADLINE)
    assert isinstance(old.ask(control.StartTracking()), Refusal)
    assert isinstance(old.ask(control.Run(epoch=1)), Running)
    assert old.works(30).guest.errors == 0
    assert not old.describe().handed_over


def test_the_old_process_has_its_machine_again_also_from_one_that_still_waits(old: Controller, new: NewProcess) -> None:
    handed_over(old, new)
    assert isinstance(old.ask(control.Run(epoch=1)), Running)
    assert old.works(30).guest.errors == 0


def test_a_machine_goes_on_where_the_new_process_dies_with_the_offer(old: Controller, new: NewProcess) -> None:
    assert old.ask(update_requests.OfferUpdate(path=str(new.socket))) == Done()
    assert new.says() == "prepared"
    new.process.kill()
    new.process.wait(DEADLINE)
    refusal = old.ask(update_requests.HandOver())
    assert isinstance(refusal, Refusal)
    assert "does not answer" in refusal.reason
    assert old.describe().run_state == "running"
    assert old.works(30).guest.errors == 0


def test_nobody_is_offered_a_machine_where_nobody_waits(old: Controller, tmp_path: Path) -> None:
    refusal = old.ask(update_requests.OfferUpdate(path=str(tmp_path / "nobody.sock")))
    assert isinstance(refusal, Refusal)
    assert "Nobody listens" in refusal.reason
    assert isinstance(old.ask(update_requests.HandOver()), Refusal)
    assert old.describe().run_state == "running"


def test_a_guest_runs_in_one_process_whoever_is_told_to_run_it(old: Controller, new: NewProcess) -> None:
    """The journal lets one be told only. Were both told, the kernel would let one have the interrupts."""
    handed_over(old, new)
    with new.controller() as controller:
        assert isinstance(controller.ask(control.Run(epoch=1)), Running)
        refusal = old.ask(control.Run(epoch=1))
        assert isinstance(refusal, Refusal)
        assert "Another process takes the interrupts" in refusal.reason
        assert old.describe().run_state == "paused"
        assert controller.works(30).guest.errors == 0


def test_a_paused_machine_is_handed_over_paused(old: Controller, new: NewProcess) -> None:
    assert isinstance(old.ask(control.Pause(for_attempt=False)), Paused)
    assert old.ask(update_requests.OfferUpdate(path=str(new.socket))) == Done()
    assert new.says() == "prepared"
    paused = old.ask(update_requests.HandOver())
    assert isinstance(paused, Paused)
    assert not paused.was_running
    assert new.says() == "ready"
    with new.controller() as controller:
        assert old.ask(control.Release(epoch=1)) == Done()
        assert controller.ask(control.StayPaused(epoch=2)) == Done()
        assert controller.describe().run_state == "paused"
        assert isinstance(controller.ask(control.Run(epoch=2)), Running)
        assert controller.works(30).guest.errors == 0


def test_a_machine_that_is_being_migrated_is_not_handed_over(old: Controller, new: NewProcess) -> None:
    assert old.ask(control.StartTracking()) == Done()
    refusal = old.ask(update_requests.OfferUpdate(path=str(new.socket)))
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith("dirty-tracking: ")
    judged = old.ask(update_requests.JudgeUpdate())
    assert isinstance(judged, control.Judged)
    assert [each.code for each in judged.blockers] == ["dirty-tracking"]
