"""A guest that suspends to RAM, and wakes on the devices that it had or on others of their kind, in virtual time."""

from collections.abc import Mapping, Sequence

import pytest

from lab.rehearsal.side import Side, assembled_side, boot
from tests.vmm.update.test_taking_over import GPU, NIC, PLAIN, QAT, TYPE1, scenario
from vfio_host.interface.rings import CONTROL_ENABLE, RingRegister
from vmm.guest.console import ConsoleRefused, GuestAction
from vmm.update.blockers import judge_update
from vmm.update.ownership import facts_of

DEVICES = [[QAT], [TYPE1, NIC], [GPU, PLAIN]]


def told(side: Side, action: GuestAction, device: str | None = None) -> None:
    """Type something at the guest's console, and wait until it is done."""
    side.machine.guest_command(action, device)
    side.world.wake()
    for _ in range(500):
        if not side.machine.report().busy_actions:
            return
        side.world.run_for(1)
    pytest.fail(f"The guest does not {action}")


def enabled(side: Side) -> list[bool]:
    return [bool(each.hardware.read_register(RingRegister.CONTROL) & CONTROL_ENABLE) for each in side.host.devices]


@pytest.mark.parametrize("viommu", ["none", "pt", "nopt"])
@pytest.mark.parametrize("devices", DEVICES, ids=lambda devices: "+".join(str(each["model"]) for each in devices))
def test_a_suspended_guest_wakes_on_other_devices_as_if_nothing_had_been(
    devices: Sequence[Mapping[str, object]], viommu: str
) -> None:
    made = scenario(devices, viommu=viommu)
    with assembled_side(made) as side, assembled_side(made) as other:
        boot(side, 1)
        side.world.run_for(100)
        told(side, GuestAction.SUSPEND)
        assert side.machine.suspended
        assert not any(enabled(side))
        before = side.machine.report()
        side.world.run_for(50)
        assert side.machine.report().pages_written == before.pages_written
        side.machine.stand_still()
        other.block.data[:] = side.block.data
        other.machine.take_over(side.machine.standing_state())
        assert other.machine.suspended
        other.machine.wake()
        other.start()
        other.world.run_for(200)
        after = other.machine.report()
        assert all(enabled(other))
        assert (after.errors, other.machine.suspended) == (0, False)
        assert after.jobs_done > before.jobs_done
        assert after.pages_written > before.pages_written


def test_a_guest_without_devices_has_none_to_set_up_anew_and_goes_on_where_it_stood() -> None:
    """It cannot be suspended, and need not be: what another process finds of it is RAM, and where its vCPUs stood."""
    made = scenario([], viommu="none")
    with assembled_side(made) as side, assembled_side(made) as other:
        boot(side, 1)
        side.world.run_for(100)
        assert judge_update(facts_of(side.machine), "reboot", suspended=side.machine.suspended) == ()
        side.machine.stand_still()
        before = side.machine.report()
        other.block.data[:] = side.block.data
        other.machine.take_over(side.machine.standing_state())
        other.machine.wake()
        other.start()
        other.world.run_for(200)
        assert other.machine.report().errors == 0
        assert other.machine.report().pages_written > before.pages_written > 0


def test_a_suspended_guest_wakes_where_it_is_too_and_hears_nothing_else_meanwhile() -> None:
    with assembled_side(scenario([QAT, NIC], viommu="pt")) as side:
        boot(side, 1)
        side.world.run_for(50)
        told(side, GuestAction.TAKE, "dev0")
        told(side, GuestAction.SUSPEND)
        for action in (GuestAction.GIVE_BACK, GuestAction.QUIET, GuestAction.SUSPEND):
            with pytest.raises(ConsoleRefused, match="wake"):
                side.machine.guest_command(action, "dev0")
        told(side, GuestAction.WAKE)
        assert not side.machine.suspended
        told(side, GuestAction.GIVE_BACK, "dev0")
        done = side.machine.report().jobs_done
        side.world.run_for(100)
        assert side.machine.report().jobs_done > done
        assert side.machine.report().errors == 0


def test_a_blocked_device_is_suspended_too_and_a_guest_without_devices_never() -> None:
    with assembled_side(scenario([QAT], viommu="nopt")) as side:
        boot(side, 1)
        side.world.run_for(50)
        told(side, GuestAction.BLOCK, "dev0")
        told(side, GuestAction.SUSPEND)
        assert side.machine.suspended
        told(side, GuestAction.WAKE)
        side.world.run_for(50)
        assert side.machine.report().errors == 0
    with assembled_side(scenario([], viommu="none")) as side:
        boot(side, 1)
        side.machine.guest_command(GuestAction.SUSPEND)
        side.world.run_for(5)
        assert not side.machine.suspended
