"""Another program takes the place of a machine process's own, in the same process: mode exec (semantics 9.8)."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.vmm.update.machine_processes import DEADLINE, Controller, specification, waiting
from vm_migration.machine.launch import launch, take_away
from vm_migration.machine.run_directory import MachineDirectory, RunDirectory
from vmm.process import control, update_requests
from vmm.process.control import Done, Refusal, Replaced
from vmm.process.image import THIS

OF_ANOTHER_FORMAT = (
    sys.executable,
    "-c",
    "import vmm.update.documents as documents; documents.READS = (99,); from vmm.process.main import main; main()",
)
"""A program that reads no state of this version."""


OF_ANOTHER_GUEST = (
    sys.executable,
    "-c",
    "import vmm.guest.guest as guest; guest.STATE_VERSION = 99; from vmm.process.main import main; main()",
)
"""A program whose documents are the same, and whose guest's state is not."""


def descriptors_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.fixture
async def directory(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[MachineDirectory]:
    backend, viommu = getattr(request, "param", ("iommufd", True))
    made = specification(backend=backend, enable_migration="on", viommu=viommu)
    started = await launch(RunDirectory(tmp_path), uuid4(), made, incoming=False)
    yield started
    await take_away(started, None)


@pytest.fixture
def controller(directory: MachineDirectory) -> Iterator[Controller]:
    with Controller(directory.path / control.CONTROL_SOCKET) as attached:
        yield attached


@pytest.mark.parametrize("directory", [("iommufd", True), ("type1", False)], indirect=True)
def test_a_busy_machine_goes_on_in_another_program_of_its_process_again_and_again(controller: Controller) -> None:
    before = controller.works(5)
    had = descriptors_of(before.pid)
    for number in range(1, 3):
        reply = controller.ask(update_requests.ReplaceImage(command=THIS))
        assert isinstance(reply, Replaced), reply
        assert (reply.pause, reply.was_running) == (before.pause + number, True)
        assert reply.executed_ns > reply.last_executed_ns
        after = controller.works(20)
        assert (after.pid, after.instance) == (before.pid, before.instance)
        assert (after.epoch, after.controller, after.run_state) == (before.epoch, before.controller, "running")
        assert descriptors_of(before.pid) == had


@pytest.mark.parametrize("directory", [("iommufd", False), ("type1", True)], indirect=True)
def test_a_program_of_another_format_gives_the_process_back(controller: Controller) -> None:
    before = controller.works(5)
    reply = controller.ask(update_requests.ReplaceImage(command=OF_ANOTHER_FORMAT))
    assert isinstance(reply, Refusal)
    assert "format 1; this version reads 99" in reply.reason
    after = controller.works(20)
    assert (after.pid, after.instance, after.run_state) == (before.pid, before.instance, "running")
    assert isinstance(controller.ask(update_requests.ReplaceImage(command=THIS)), Replaced)
    controller.works(20)


@pytest.mark.parametrize("directory", [("iommufd", True), ("type1", False)], indirect=True)
def test_a_process_rehearses_the_state_and_takes_nothing(directory: MachineDirectory, controller: Controller) -> None:
    before = controller.works(5)
    had = descriptors_of(before.pid)
    for _ in range(3):
        with waiting(directory, option="--rehearse") as new:
            assert controller.ask(update_requests.OfferUpdate(path=str(new.socket))) == Done()
            assert new.says() == "prepared"
            assert controller.ask(update_requests.RehearseUpdate()) == Done()
            assert new.process.wait(DEADLINE) == 0
        after = controller.works(5)
        assert (after.pid, after.pause, after.run_state) == (before.pid, before.pause, "running")
    assert descriptors_of(before.pid) == had
    assert isinstance(controller.ask(update_requests.ReplaceImage(command=THIS)), Replaced)
    controller.works(20)


def test_a_program_that_does_not_read_the_guest_s_state_is_found_while_the_guest_runs(
    directory: MachineDirectory, controller: Controller
) -> None:
    before = controller.works(5)
    with waiting(directory, option="--rehearse", program=OF_ANOTHER_GUEST) as new:
        assert controller.ask(update_requests.OfferUpdate(path=str(new.socket))) == Done()
        assert new.says() == "prepared"
        reply = controller.ask(update_requests.RehearseUpdate())
        assert isinstance(reply, Refusal)
        assert "A part of the machine's state was refused" in reply.reason
    assert controller.works(20).pause == before.pause


def test_nobody_takes_a_rehearsal_for_a_machine_or_a_machine_for_a_rehearsal(
    directory: MachineDirectory, controller: Controller
) -> None:
    for option, request, why in (
        ("--adopt", update_requests.RehearseUpdate(), "Mappings of 0 containers"),
        ("--rehearse", update_requests.HandOver(), "only rehearses"),
    ):
        with waiting(directory, option=option) as new:
            assert controller.ask(update_requests.OfferUpdate(path=str(new.socket))) == Done()
            assert new.says() == "prepared"
            reply = controller.ask(request)
            assert isinstance(reply, Refusal)
            assert why in reply.reason
        controller.works(5)
    refusal = controller.ask(update_requests.RehearseUpdate())
    assert isinstance(refusal, Refusal)
    assert "No process was offered" in refusal.reason


@pytest.mark.parametrize("command", [("/nonexistent/viaduct-vmm",), (), (str(Path(__file__)),)])
def test_a_machine_goes_on_where_there_is_no_such_program(controller: Controller, command: tuple[str, ...]) -> None:
    before = controller.works(5)
    assert isinstance(controller.ask(update_requests.ReplaceImage(command=command)), Refusal)
    after = controller.works(20)
    assert (after.pid, after.run_state) == (before.pid, "running")


def test_a_paused_machine_stays_paused_and_others_connect_anew(
    directory: MachineDirectory, controller: Controller
) -> None:
    with Controller(directory.path / control.CONTROL_SOCKET, 1, 2) as newer:
        assert isinstance(newer.ask(control.Pause(for_attempt=False)), control.Paused)
        reply = newer.ask(update_requests.ReplaceImage(command=THIS))
        assert isinstance(reply, Replaced)
        assert not reply.was_running
        assert newer.describe().run_state == "paused"
        assert isinstance(newer.ask(control.Run(epoch=1)), control.Running)
        newer.works(20)
    with Controller(directory.path / control.CONTROL_SOCKET, 1, 3) as newest:
        newest.works(5)


def test_a_machine_that_is_being_migrated_keeps_its_program(controller: Controller) -> None:
    assert controller.ask(control.StartTracking()) == control.Done()
    assert isinstance(controller.ask(update_requests.ReplaceImage(command=THIS)), Refusal)
    controller.works(5)
