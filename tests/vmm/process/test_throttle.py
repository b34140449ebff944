"""Time taken from vCPUs: who may ask for it, and that it is given back whatever becomes of who asked."""

from collections.abc import Iterator

import pytest

from tests.vmm.tiny_machine import tiny_commands
from vmm.guest.pacing import SECOND
from vmm.process import commands as served
from vmm.process import control
from vmm.process.commands import Commands
from vmm.process.controllers import Controller


class Clock:
    """The process's clock, which this test moves."""

    now = 5 * SECOND

    def monotonic_ns(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(served, "time", clock)
    return clock


@pytest.fixture
def running(clock: Clock) -> Iterator[Commands]:
    del clock
    with tiny_commands() as commands:
        yield commands


def attached(commands: Commands, number: int = 1) -> Controller:
    controller = Controller()
    commands.serve(controller, control.Attach(epoch=1, controller=number))
    return controller


def leaving(commands: Commands) -> Controller:
    controller = attached(commands)
    assert asked(commands, controller, control.StartTracking()) == control.Done()
    return controller


def asked(commands: Commands, controller: Controller, request: control.AnyRequest) -> control.AnyReply:
    return commands.serve(controller, request)[0]


def taken(commands: Commands) -> int | None:
    described, _ = commands.serve(Controller(), control.Describe())
    assert isinstance(described, control.Description)
    return described.throttle_percent


def written_in(commands: Commands, clock: Clock, seconds: float) -> int:
    """Let the machine run for so long, as its loop does, and return how many pages its vCPUs wrote."""
    before = commands.machine.report().pages_written
    end = clock.now + round(seconds * SECOND)
    while clock.now < end:
        due = commands.step()
        clock.now = min(end, max(clock.now + 100_000, due))
    return commands.machine.report().pages_written - before


def test_vcpus_write_as_much_less_as_is_taken_from_them(running: Commands, clock: Clock) -> None:
    controller = leaving(running)
    written_in(running, clock, 2)
    whole = written_in(running, clock, 4)
    for percent in (20, 50, 90):
        asked(running, controller, control.Throttle(percent=percent))
        assert taken(running) == percent
        written_in(running, clock, 0.5)
        assert written_in(running, clock, 4) == pytest.approx(whole * (1 - percent / 100), rel=0.06)
    asked(running, controller, control.Throttle(percent=0))
    assert taken(running) == 0
    assert written_in(running, clock, 4) == pytest.approx(whole, rel=0.06)
    assert running.machine.report().errors == 0


def test_the_rate_that_a_throttled_guest_tells_is_that_of_the_hosts_seconds(running: Commands, clock: Clock) -> None:
    controller = leaving(running)
    written_in(running, clock, 2)
    for _ in range(8):
        asked(running, controller, control.Throttle(percent=75))
        written_in(running, clock, 1)
    assert running.machine.report().dirty_bytes_per_s == pytest.approx(0.25 * (1 << 20), rel=0.1)


def test_it_is_given_back_when_nobody_asks_for_it_again(running: Commands, clock: Clock) -> None:
    controller = leaving(running)
    whole = written_in(running, clock, 4)
    asked(running, controller, control.Throttle(percent=90))
    written_in(running, clock, control.THROTTLE_SECONDS - 0.5)
    assert taken(running) == 90
    asked(running, controller, control.Throttle(percent=90))
    written_in(running, clock, control.THROTTLE_SECONDS - 0.5)
    assert taken(running) == 90
    written_in(running, clock, 0.5)
    assert taken(running) == 0
    assert written_in(running, clock, 4) == pytest.approx(whole, rel=0.06)


@pytest.mark.parametrize(
    "request_",
    [control.StopTracking(), control.Pause(for_attempt=True), control.StartTracking(), control.Throttle(percent=0)],
)
def test_it_is_given_back_at_the_end_of_an_attempt_however_it_ends(
    running: Commands, request_: control.AnyRequest
) -> None:
    controller = leaving(running)
    asked(running, controller, control.Throttle(percent=90))
    asked(running, controller, request_)
    assert taken(running) == 0


def test_it_is_given_back_when_the_connection_of_who_asked_closes(running: Commands) -> None:
    controller = leaving(running)
    asked(running, controller, control.Throttle(percent=90))
    running.left(Controller())  # somebody who only looked
    assert taken(running) == 90
    running.left(controller)
    assert taken(running) == 0


def test_it_is_given_back_when_another_commands_and_an_old_connections_end_takes_nothing_from_him(
    running: Commands,
) -> None:
    old = leaving(running)
    asked(running, old, control.Throttle(percent=90))
    new = attached(running, 2)
    assert taken(running) == 0
    assert isinstance(asked(running, old, control.Throttle(percent=90)), control.Refusal)
    asked(running, new, control.Throttle(percent=30))
    running.left(old)
    assert taken(running) == 30


def test_nothing_is_taken_from_a_machine_that_is_not_leaving(running: Commands) -> None:
    controller = attached(running)
    want = control.Throttle(percent=20)
    assert isinstance(asked(running, controller, want), control.Refusal)
    asked(running, controller, control.StartTracking(reason="dirty-rate"))
    assert isinstance(asked(running, controller, want), control.Refusal)
    asked(running, controller, control.StartTracking())
    asked(running, controller, control.Pause(for_attempt=True))
    assert isinstance(asked(running, controller, want), control.Refusal)
    asked(running, controller, control.Run(epoch=1))
    assert asked(running, controller, want) == control.Done()
    asked(running, controller, control.StopTracking())
    assert isinstance(asked(running, controller, want), control.Refusal)
    assert taken(running) == 0


@pytest.mark.parametrize("percent", [-1, 100])
def test_a_share_that_is_none_is_refused(running: Commands, percent: int) -> None:
    controller = leaving(running)
    assert isinstance(asked(running, controller, control.Throttle(percent=percent)), control.Refusal)
    assert taken(running) == 0
