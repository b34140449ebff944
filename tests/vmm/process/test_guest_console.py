"""The guest's console of a machine process: whoever reaches the control socket may type, without commanding."""

from tests.vmm.tiny_machine import tiny_commands
from vmm.guest.console import GuestAction
from vmm.process import control
from vmm.process.controllers import Controller


def test_typing_needs_no_command_of_the_machine() -> None:
    with tiny_commands() as commands:
        commander = Controller()
        commands.serve(commander, control.Attach(epoch=1, controller=1))
        written = commands.machine.report().pages_written
        reply, _ = commands.serve(Controller(), control.GuestCommand(action=GuestAction.QUIET))
        assert reply == control.Done()
        commands.step()
        commands.step()
        assert commands.machine.report().pages_written <= written
        assert commands.machine.report().asked_dirty_bytes_per_s == 0
        reply, _ = commands.serve(commander, control.ConfirmStopped())
        assert reply == control.Stopped(stopped=False, pause=0), "who commands still does"


def test_what_the_guest_cannot_do_is_refused_in_words() -> None:
    with tiny_commands() as commands:
        for action, device in ((GuestAction.TAKE, None), (GuestAction.BLOCK, "qat0"), (GuestAction.CHURN, "")):
            reply, _ = commands.serve(Controller(), control.GuestCommand(action=action, device=device))
            assert isinstance(reply, control.Refusal)
            assert not reply.fenced
            assert f"Cannot {action}: no device" in reply.reason


def test_a_request_travels() -> None:
    request = control.GuestCommand(action=GuestAction.GIVE_BACK, device="qat0")
    assert control.request_decoder.decode(control.encode(request)) == request
