"""What agents rely on of a machine process holds for the simulated one, for `viaduct-vmm`, and for QEMU.

What concerns pages, devices' records and throttles is the model's alone: QEMU refuses it.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from tests.simulation.machines import HostMachines, SimulatedHypervisor, Watch
from tests.simulation.virtual_loop import Process, VirtualLoop
from tests.simulation.virtual_time import in_virtual_time
from tests.simulation.world import SPECIFICATION
from vm_migration.machine.errors import CutOff, LaunchFailed, MachineError, MachineGone, MachineRefused
from vm_migration.machine.hypervisor import Hypervisor, MachinePlace
from vm_migration.machine.port import MachinePort
from vm_migration.machine.run_directory import MachineDirectory
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.assembly.specification import MachineSpecification, check_specification
from vmm.vfio.device_records import DeviceRecord

MACHINE = UUID("0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01")
OTHER = UUID("1b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01")

QEMU = check_specification(
    {"name": "nothing", "kind": "qemu", "memory": {"size": "16MiB"}, "qemu": {"arguments": ["-accel", "tcg"]}},
    "a test's",
)
"""Its firmware finds nothing to boot."""
PROGRAM = shutil.which("qemu-system-x86_64") or "qemu-system-x86_64 is not installed"

Scenario = Callable[[Hypervisor], Awaitable[None]]
Over = Callable[[Path, Scenario], None]
Take = Callable[[int], Awaitable[None]]


def over_processes(
    folder: Path, scenario: Scenario, hypervisor_of: Callable[[Path], SoftwareHypervisor] = SoftwareHypervisor
) -> None:
    """Run a scenario with real machine processes, and leave none."""

    async def run() -> None:
        hypervisor = hypervisor_of(folder / "run")
        try:
            await scenario(hypervisor)
        finally:
            for place in list(hypervisor.all()):
                await hypervisor.take_away(place, None)

    asyncio.run(run())


class QemuHypervisor(SoftwareHypervisor):
    """Makes a QEMU of every machine, which boots nothing."""

    async def launch(self, machine: UUID, specification: MachineSpecification, *, incoming: bool) -> MachineDirectory:
        return await super().launch(machine, QEMU, incoming=incoming)


def over_qemu(folder: Path, scenario: Scenario) -> None:
    """Run a scenario with real QEMU processes, and leave none."""
    over_processes(folder, scenario, lambda run: QemuHypervisor(run, qemu=[PROGRAM]))


def over_simulation(_folder: Path, scenario: Scenario) -> None:
    """Run a scenario with simulated machine processes."""

    async def run(loop: VirtualLoop) -> None:
        machines = HostMachines("host-a", loop, Watch(), {}, witness=False)
        await scenario(SimulatedHypervisor(machines, Process("agent")))

    in_virtual_time(run)


over_all = pytest.mark.parametrize("over", [over_processes, over_simulation, over_qemu])
over_both = pytest.mark.parametrize("over", [over_processes, over_simulation])


async def started(hypervisor: Hypervisor, *, incoming: bool = False, machine: UUID = MACHINE) -> MachinePlace:
    return await hypervisor.launch(machine, SPECIFICATION, incoming=incoming)


@over_all
def test_the_fence_and_the_pause_numbers(over: Over, tmp_path: Path) -> None:
    async def scenario(hypervisor: Hypervisor) -> None:
        place = await started(hypervisor)
        old, new = hypervisor.connect(place), hypervisor.connect(place)
        assert (await old.describe()).run_state == "running"
        with pytest.raises(CutOff):  # it has not attached
            await old.pause(for_attempt=False)
        await old.attach(1, 1)
        first = await old.pause(for_attempt=True)
        again = await old.pause(for_attempt=True)
        assert (first.pause, first.was_running, again.pause, again.was_running) == (1, True, 1, False)
        await new.attach(1, 2)
        with pytest.raises(CutOff):
            await old.run(1)
        with pytest.raises(CutOff):
            await old.attach(1, 1)
        assert await new.confirm_stopped() == 1
        await new.run(1)
        assert await new.confirm_stopped() is None
        with pytest.raises(MachineRefused):  # only one that stands still is released
            await new.release(1)
        assert (await new.pause(for_attempt=True)).pause == 2
        await new.release(1)
        with pytest.raises(CutOff):
            await new.run(1)
        with pytest.raises(CutOff):
            await new.stay_paused(1)
        await new.run(2)
        described = await new.describe()
        assert (described.run_state, described.released, described.controller) == ("running", 1, 2)
        for port in (old, new):
            await port.close()
        with pytest.raises(MachineGone):
            await new.describe()

    over(tmp_path, scenario)


@over_both
def test_an_incoming_machine_lives_on_a_whole_state_only(over: Over, tmp_path: Path) -> None:
    async def scenario(hypervisor: Hypervisor) -> None:
        source, target = await started(hypervisor), await started(hypervisor, incoming=True, machine=OTHER)
        here, there = hypervisor.connect(source), hypervisor.connect(target)
        await here.attach(1, 1)
        await there.attach(2, 1)
        for refused in (there.run(2), there.stay_paused(2), there.pause(for_attempt=True), here.populate(0, 1)):
            with pytest.raises(MachineRefused):
                await refused
        await here.start_tracking()
        stop = await here.pause(for_attempt=True)
        records: list[DeviceRecord] = []
        complete = False
        while not complete:
            found = await here.read_device_data(1 << 20)
            records += found.records
            complete = found.complete
        state = await here.save()
        if records:
            await there.write_device_data(records)
        await there.load(state, stop.pause + 6)
        assert (await there.describe()).run_state == "incoming"
        await there.stay_paused(2)
        described = await there.describe()
        assert (described.run_state, described.pause) == ("paused", stop.pause + 6)
        await here.stop_tracking()
        await here.run(1)
        for port in (here, there):
            await port.close()

    over(tmp_path, scenario)


@over_all
def test_a_machine_is_ended_once_and_by_whom_it_obeys(over: Over, tmp_path: Path) -> None:
    async def scenario(hypervisor: Hypervisor) -> None:
        place = await started(hypervisor)
        with pytest.raises(LaunchFailed):
            await started(hypervisor)
        instance = place.instance()
        assert instance is not None
        name = instance.name
        assert hypervisor.instance_lives(name) is True
        assert hypervisor.instance_lives("") is None
        old, new = hypervisor.connect(place), hypervisor.connect(place)
        await old.attach(1, 1)
        await new.attach(1, 2)
        with pytest.raises(CutOff):
            await hypervisor.take_away(place, old)
        await hypervisor.take_away(place, None, only="another:1:2:instance")
        assert place.alive()
        await hypervisor.take_away(place, new)
        assert not place.alive()
        assert hypervisor.instance_lives(name) is False
        assert place.instance() is None
        assert not list(hypervisor.all())
        with pytest.raises(MachineGone):
            place.specification()
        with pytest.raises(MachineError):
            await new.describe()
        await hypervisor.take_away(place, None)
        for port in (old, new):
            with suppress(MachineError):
                await port.close()

    over(tmp_path, scenario)


async def taken_from_one_that_leaves(
    hypervisor: Hypervisor, place: MachinePlace, take: Callable[[MachinePort], Take], most: int
) -> tuple[MachinePort, MachinePort]:
    """Take a fifth, refused to all but who commands, and of a machine that stays; return his port and another."""
    port, looker = hypervisor.connect(place), hypervisor.connect(place)
    await port.attach(1, 1)
    with pytest.raises(MachineRefused):  # it is not leaving
        await take(port)(20)
    await port.start_tracking()
    with pytest.raises(MachineRefused):
        await take(port)(most + 1)
    with pytest.raises(CutOff):
        await take(looker)(20)
    await take(port)(20)
    return port, looker


@over_both
def test_time_is_taken_from_a_machine_that_leaves_and_no_longer_than_its_controller_commands(
    over: Over, tmp_path: Path
) -> None:
    async def scenario(hypervisor: Hypervisor) -> None:
        place = await started(hypervisor)
        port, looker = await taken_from_one_that_leaves(hypervisor, place, lambda port: port.throttle, 99)
        assert (await looker.describe()).throttle_percent == 20
        await port.stop_tracking()
        assert (await looker.describe()).throttle_percent == 0
        await port.start_tracking()
        await port.throttle(30)
        new = hypervisor.connect(place)
        await new.attach(1, 2)
        assert (await looker.describe()).throttle_percent == 0
        await new.throttle(40)
        assert (await new.pause(for_attempt=True)).was_running
        assert (await looker.describe()).throttle_percent == 0
        for each in (port, looker, new):
            await each.close()

    over(tmp_path, scenario)


@over_both
def test_time_of_devices_is_taken_only_for_who_commands_a_machine_that_leaves(over: Over, tmp_path: Path) -> None:
    async def scenario(hypervisor: Hypervisor) -> None:
        place = await started(hypervisor)
        port, looker = await taken_from_one_that_leaves(hypervisor, place, lambda port: port.throttle_devices, 98)
        throttle = (await looker.describe()).device_throttle
        assert throttle is not None
        assert (throttle.percent, throttle.slowed, throttle.at_full_speed) == (0, (), ()), "it has no device"
        assert (await port.pause(for_attempt=True)).was_running
        with pytest.raises(MachineRefused):
            await port.throttle_devices(20)
        for each in (port, looker):
            await each.close()

    over(tmp_path, scenario)
