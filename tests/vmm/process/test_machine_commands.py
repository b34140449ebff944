"""Who may command a machine process, and what it refuses whoever asks."""

from collections.abc import Iterator

import pytest

from tests.vmm.tiny_machine import tiny_commands
from vmm.process import control
from vmm.process.commands import Commands
from vmm.process.controllers import Controller
from vmm.vfio.device_records import DeviceRecord, RecordKind


@pytest.fixture
def running() -> Iterator[Commands]:
    with tiny_commands() as commands:
        yield commands


@pytest.fixture
def incoming() -> Iterator[Commands]:
    with tiny_commands(incoming=True) as commands:
        yield commands


def attached(commands: Commands, epoch: int = 1, number: int = 1) -> Controller:
    controller = Controller()
    reply, _ = commands.serve(controller, control.Attach(epoch=epoch, controller=number))
    assert isinstance(reply, control.Description)
    return controller


def refusal(commands: Commands, controller: Controller, request: control.AnyRequest) -> control.Refusal:
    reply, _ = commands.serve(controller, request)
    assert isinstance(reply, control.Refusal), reply
    return reply


def test_a_connection_that_has_not_attached_only_looks(running: Commands) -> None:
    reply, _ = running.serve(Controller(), control.Describe())
    assert isinstance(reply, control.Description)
    assert refusal(running, Controller(), control.Pause(for_attempt=False)).fenced
    assert running.machine.running


def test_a_controller_that_comes_back_cuts_its_own_old_connection_off(running: Commands) -> None:
    """What the old connection still had in its buffers must not come after what the new one was told."""
    old = attached(running, 1, 4)
    new = attached(running, 1, 4)
    assert refusal(running, old, control.Pause(for_attempt=True)).fenced
    assert running.machine.running
    reply, _ = running.serve(new, control.Pause(for_attempt=True))
    assert isinstance(reply, control.Paused)


def test_an_incoming_machine_runs_on_a_whole_state_only(running: Commands, incoming: Commands) -> None:
    here, there = attached(running), attached(incoming, 2)
    for request in (control.Run(epoch=2), control.StayPaused(epoch=2)):
        assert "whole state" in refusal(incoming, there, request).reason
    assert not incoming.machine.running
    paused, _ = running.serve(here, control.Pause(for_attempt=True))
    assert isinstance(paused, control.Paused)
    saved, _ = running.serve(here, control.Save())
    assert isinstance(saved, control.State)
    incoming.serve(there, control.Load(state=saved.state, pause=paused.pause))
    assert "read" in refusal(incoming, there, control.Load(state=b"none", pause=paused.pause)).reason
    assert "whole state" in refusal(incoming, there, control.Run(epoch=2)).reason
    incoming.serve(there, control.Load(state=saved.state, pause=paused.pause))
    reply, _ = incoming.serve(there, control.Run(epoch=2))
    assert isinstance(reply, control.Running)
    assert incoming.machine.running


def test_a_machine_that_runs_is_not_released_and_one_that_is_released_does_not_run(running: Commands) -> None:
    controller = attached(running)
    assert "stands still" in refusal(running, controller, control.Release(epoch=1)).reason
    running.serve(controller, control.Pause(for_attempt=True))
    assert running.serve(controller, control.Release(epoch=1)) == (control.Done(), ())
    assert refusal(running, controller, control.Run(epoch=1)).fenced
    reply, _ = running.serve(controller, control.Run(epoch=2))
    assert isinstance(reply, control.Running)


def test_stops_are_counted_and_one_asked_twice_is_one(running: Commands) -> None:
    controller = attached(running)
    first, _ = running.serve(controller, control.Pause(for_attempt=True))
    again, _ = running.serve(controller, control.Pause(for_attempt=True))
    assert isinstance(first, control.Paused)
    assert isinstance(again, control.Paused)
    assert (first.pause, first.was_running, again.pause, again.was_running) == (1, True, 1, False)
    running.serve(controller, control.Run(epoch=1))
    third, _ = running.serve(controller, control.Pause(for_attempt=False))
    assert isinstance(third, control.Paused)
    assert third.pause == 2


@pytest.mark.parametrize("budget", [0, -1, control.MAX_DEVICE_DATA + 1])
def test_device_state_is_read_in_messages_of_a_bounded_size(running: Commands, budget: int) -> None:
    assert "at once" in refusal(running, attached(running), control.ReadDeviceData(budget=budget)).reason


def test_device_state_goes_from_a_machine_to_an_incoming_one(running: Commands, incoming: Commands) -> None:
    records = (DeviceRecord("qat0", RecordKind.SETUP),)
    refused = refusal(running, attached(running), control.WriteDeviceData(records=records))
    assert "incoming" in refused.reason
    there = attached(incoming, 2)
    assert "incoming" in refusal(incoming, there, control.ReadDeviceData(budget=1)).reason
    assert "qat0" in refusal(incoming, there, control.WriteDeviceData(records=records)).reason
    reply, _ = running.serve(attached(running), control.ReadDeviceData(budget=1))
    assert isinstance(reply, control.DeviceData)
    assert reply.complete, "there are no devices"
