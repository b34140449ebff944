"""Time taken from devices: who may ask for it, and that every device works again whatever becomes of who asked."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.rehearsal.side import Side, assembled_side, boot
from tests.vmm.assembly.test_devices_slowed_down import Device, dma_pages, scenario
from vfio_host.interface.numbers import DeviceState
from vmm.process import commands as served
from vmm.process import control
from vmm.process.commands import Commands
from vmm.process.controllers import Controller
from vmm.process.identity import Identity, boot_id
from vmm.process.request import Request
from vmm.vfio.quiesce_slices import MOST_PERCENT, PERIOD_NS

CARD: Device = {"model": "nic", "dma_rate": "1MiB/s"}
ACCELERATOR: Device = {"model": "qat", "dma_rate": "1MiB/s"}
WORKING = (DeviceState.RUNNING, DeviceState.PRE_COPY)
MOST = control.ThrottleDevices(percent=MOST_PERCENT)


class Served:
    """A machine of two devices in virtual time, served as its process does."""

    def __init__(self, side: Side) -> None:
        identity = Identity(machine="0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01", boot_id=boot_id(), pid=1, instance="t")
        self.side = side
        self.commands = Commands(side.machine, identity, incoming=False)

    def monotonic_ns(self) -> int:
        """The process's clock."""
        return self.side.world.now_ns

    def attached(self, number: int = 1) -> Controller:
        controller = Controller()
        self.commands.serve(controller, control.Attach(epoch=1, controller=number))
        return controller

    def leaving(self) -> Controller:
        controller = self.attached()
        assert self.asked(controller, control.StartTracking()) == control.Done()
        return controller

    def asked(self, controller: Controller, request: control.AnyRequest) -> control.AnyReply:
        reply = self.commands.serve(controller, request)[0]
        self.side.world.wake()
        return reply

    def taken(self) -> int:
        described, _ = self.commands.serve(Controller(), control.Describe())
        assert isinstance(described, control.Description)
        assert described.device_throttle is not None
        assert described.device_throttle.slowed == ("dev0", "dev1")
        return described.device_throttle.percent

    def states(self) -> list[DeviceState]:
        return [assembled.device.state for assembled in self.side.machine.devices]

    def into_a_slice(self) -> None:
        """Let time pass until devices are held."""
        for _ in range(2 * PERIOD_NS // 1_000_000):
            self.side.world.run_for(1)
            if not any(state in WORKING for state in self.states()):
                return
        raise AssertionError("Devices were not held for two periods")


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with assembled_side(scenario(CARD, ACCELERATOR)) as side:
        found = Served(side)
        monkeypatch.setattr(served, "time", found)
        boot(side, 1)
        yield found


def test_devices_are_held_and_a_description_says_so(running: Served) -> None:
    controller = running.leaving()
    assert running.taken() == 0
    assert running.asked(controller, MOST) == control.Done()
    assert running.taken() == MOST_PERCENT
    running.into_a_slice()
    assert running.states() == [DeviceState.PRE_COPY_P2P, DeviceState.PRE_COPY_P2P]
    assert running.asked(controller, control.ThrottleDevices(percent=0)) == control.Done()
    assert running.taken() == 0
    assert running.states() == [DeviceState.PRE_COPY, DeviceState.PRE_COPY]


def test_devices_work_again_when_nobody_asks_for_it_any_more(running: Served) -> None:
    controller = running.leaving()
    running.asked(controller, MOST)
    running.side.world.run_for(control.THROTTLE_SECONDS * 1000 - 500)
    running.asked(controller, MOST)
    running.side.world.run_for(control.THROTTLE_SECONDS * 1000 - 500)
    assert running.taken() == MOST_PERCENT
    running.into_a_slice()
    running.side.world.run_for(501)
    assert running.taken() == 0
    assert running.states() == [DeviceState.PRE_COPY, DeviceState.PRE_COPY]
    assert dma_pages(running.side, 500) > 0
    assert running.side.machine.report().errors == 0


def test_devices_work_again_when_the_connection_of_who_asked_closes(running: Served) -> None:
    controller = running.leaving()
    running.asked(controller, MOST)
    running.into_a_slice()
    running.commands.left(Controller())  # somebody who only looked
    assert running.taken() == MOST_PERCENT
    running.commands.left(controller)
    assert running.taken() == 0
    assert running.states() == [DeviceState.PRE_COPY, DeviceState.PRE_COPY]


def test_devices_work_again_when_another_commands(running: Served) -> None:
    old = running.leaving()
    running.asked(old, MOST)
    running.into_a_slice()
    new = running.attached(2)
    assert running.taken() == 0
    assert running.states() == [DeviceState.PRE_COPY, DeviceState.PRE_COPY]
    assert isinstance(running.asked(old, MOST), control.Refusal)
    assert running.asked(new, MOST) == control.Done()
    running.commands.left(old)
    assert running.taken() == MOST_PERCENT


@pytest.mark.parametrize(
    ("request_", "state"),
    [(control.StopTracking(), DeviceState.RUNNING), (control.StartTracking(), DeviceState.PRE_COPY)],
)
def test_devices_work_again_when_the_attempt_ends_or_another_begins(
    running: Served, request_: control.AnyRequest, state: DeviceState
) -> None:
    controller = running.leaving()
    running.asked(controller, MOST)
    running.into_a_slice()
    assert running.asked(controller, request_) == control.Done()
    assert running.states() == [state, state]
    assert running.taken() == 0
    running.side.world.run_for(500)
    assert running.states() == [state, state]
    assert running.side.machine.report().errors == 0


@pytest.mark.parametrize("for_attempt", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_a_machine_is_stopped_whether_its_devices_are_held_or_not_and_runs_on_unthrottled(
    running: Served, *, for_attempt: bool, held: bool
) -> None:
    controller = running.leaving()
    running.asked(controller, MOST)
    if held:
        running.into_a_slice()
    assert isinstance(running.asked(controller, control.Pause(for_attempt=for_attempt)), control.Paused)
    stopped = DeviceState.STOP_COPY if for_attempt else DeviceState.STOP
    assert running.states() == [stopped, stopped]
    assert running.taken() == 0
    if for_attempt:
        data = running.asked(controller, control.ReadDeviceData(budget=1 << 20))
        assert isinstance(data, control.DeviceData)
        assert data.complete
    assert isinstance(running.asked(controller, control.Run(epoch=1)), control.Running)
    assert running.states() == [DeviceState.RUNNING, DeviceState.RUNNING]
    running.side.world.run_for(500)
    assert running.states() == [DeviceState.RUNNING, DeviceState.RUNNING]
    assert dma_pages(running.side, 500) > 0
    assert running.side.machine.report().errors == 0


def test_nothing_is_taken_from_the_devices_of_a_machine_that_is_not_leaving(running: Served) -> None:
    controller = running.attached()
    assert isinstance(running.asked(controller, MOST), control.Refusal)
    running.asked(controller, control.StartTracking(reason="dirty-rate"))
    assert isinstance(running.asked(controller, MOST), control.Refusal)
    running.asked(controller, control.StartTracking())
    assert isinstance(running.asked(Controller(), MOST), control.Refusal)
    assert running.asked(controller, MOST) == control.Done()
    running.asked(controller, control.Pause(for_attempt=True))
    assert isinstance(running.asked(controller, MOST), control.Refusal)


@pytest.mark.parametrize("percent", [-1, MOST_PERCENT + 1])
def test_a_share_of_the_devices_time_that_is_none_is_refused(running: Served, percent: int) -> None:
    controller = running.leaving()
    assert isinstance(running.asked(controller, control.ThrottleDevices(percent=percent)), control.Refusal)
    assert running.taken() == 0


EVENTS = st.one_of(
    st.builds(control.ThrottleDevices, percent=st.sampled_from([0, 50, MOST_PERCENT])),
    st.builds(control.StartTracking, reason=st.sampled_from(["migration", "dirty-rate"])),
    st.builds(control.Pause, for_attempt=st.booleans()),
    st.sampled_from([control.StopTracking(), control.Run(epoch=1), "another attaches", "the connection closes"]),
    st.integers(1, PERIOD_NS // 1_000_000),
)


def test_no_order_of_requests_leaves_a_device_held_of_whose_time_nothing_is_taken(running: Served) -> None:
    numbers = itertools.count(1)

    @given(st.lists(EVENTS, max_size=20))
    @settings(max_examples=100)
    def walk(events: list[control.AnyRequest | str | int]) -> None:
        controller = running.attached(next(numbers))
        running.asked(controller, control.StopTracking())
        running.asked(controller, control.Run(epoch=1))
        for event in events:
            match event:
                case int():
                    running.side.world.run_for(event)
                case "another attaches":
                    controller = running.attached(next(numbers))
                case "the connection closes":
                    running.commands.left(controller)
                case Request():
                    running.asked(controller, event)
            if not isinstance(event, int | control.ThrottleDevices | control.Run):
                assert running.taken() == 0
            states = running.states()
            if not running.side.machine.running:
                assert set(states) <= {DeviceState.STOP, DeviceState.STOP_COPY}
                assert running.taken() == 0
            elif not running.taken():
                assert set(states) in ({DeviceState.RUNNING}, {DeviceState.PRE_COPY})
        assert running.side.machine.report().errors == 0
        assert running.side.machine.device_throttle.lost is None

    walk()
