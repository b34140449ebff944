"""QEMUs that were there before, that stop answering, and that are made of what matters to a migration."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.vm_migration.machine.qemu.hosts import MACHINE, host, instance_of, lost, pair, specification
from tests.vm_migration.machine.qemu.own_monitor import own_monitor, with_door
from tests.vm_migration.machine.qemu.somebodys_qemu import PLAIN, answering, somebodys_qemu
from vm_migration.machine.errors import CutOff, LaunchFailed, MachineGone, MachineRefused
from vm_migration.machine.port import MachinePort
from vm_migration.machine.qemu.devices import parts
from vm_migration.machine.qemu.fence_file import FENCE_FILE
from vm_migration.machine.qemu.session import QmpSession
from vm_migration.machine.software_hypervisor import SoftwareHypervisor

SMALL = "16MiB"


async def command(port: MachinePort) -> None:
    described = await port.attach(1, 1)
    assert described.run_state == "running"


async def test_a_qemu_that_runs_already_is_taken_over_and_said_to_be_compared_by_nothing() -> None:
    async with host("a") as (here, folder), somebodys_qemu(folder, "-m", "16M") as (path, process):
        place = await here.launch(MACHINE, specification(size=SMALL, table={"adopt": str(path)}), incoming=False)
        instance = instance_of(place)
        assert instance.vmm.pid == process.pid
        port = here.connect(place)
        await command(port)
        assert [each.code for each in (await port.describe()).warnings] == ["memory-not-compared"]
        with pytest.raises(MachineRefused, match="memory-backend-memfd"):
            await port.ram()
        assert (await port.pause(for_attempt=False)).pause == 1
        await port.run(1)
        await here.take_away(place, port)
        assert process.wait() == 0
        await port.close()


async def test_a_qemu_that_was_taken_over_fits_into_one_that_is_started_for_it() -> None:
    async with (
        host("a") as (here, folder),
        host("b") as (there, _),
        somebodys_qemu(folder, *PLAIN) as (path, process),
        pair(here, there, specification(size=SMALL, table={"adopt": str(path)})) as two,
    ):
        await two.to_gate()
        stop = await two.through()
        await two.leaving.release(1)
        await two.taken_over(stop)
        assert (await two.arriving.describe()).warnings == (), "its RAM is one that can be compared"
        await here.take_away(two.source, two.leaving)
        assert process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "size", "says"),
    [
        (("-m", "32M"), SMALL, "has 33554432 bytes of memory"),
        (("-m", "16M", "-S"), SMALL, "QEMU is prelaunch: only one that runs"),
        (("-m", "16M", "-incoming", "defer"), SMALL, "QEMU is inmigrate: only one that runs"),
    ],
)
async def test_a_qemu_that_cannot_be_taken_over_is_left_as_it_is(
    arguments: tuple[str, ...], size: str, says: str
) -> None:
    async with host("a") as (here, folder), somebodys_qemu(folder, *arguments) as (path, process):
        with pytest.raises(LaunchFailed, match=says):
            await here.launch(MACHINE, specification(size=size, table={"adopt": str(path)}), incoming=False)
        assert process.poll() is None
        await answering(path)


async def test_a_socket_behind_which_is_no_qemu_is_not_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "own.qmp"))
        listener.listen()
        async with host("a") as (here, _):
            wanted = specification(size=SMALL, table={"adopt": str(tmp_path / "own.qmp")})
            with pytest.raises(LaunchFailed, match="greets nobody"):
                await here.launch(MACHINE, wanted, incoming=False)


async def test_a_qemu_that_hangs_is_silent_and_stands_at_a_new_stop_when_it_is_back() -> None:
    async with host("a") as (here, _):
        place = await here.launch(MACHINE, specification(size=SMALL), incoming=False)
        instance = instance_of(place)
        port = here.connect(place)
        await command(port)
        first = await port.pause(for_attempt=True)
        os.kill(instance.vmm.pid, signal.SIGSTOP)
        try:
            with pytest.raises(MachineGone):
                await port.confirm_stopped()
            assert here.instance_lives(instance.name) is True
        finally:
            os.kill(instance.vmm.pid, signal.SIGCONT)
        again = await port.confirm_stopped()
        assert again is not None
        assert again > first.pause  # nobody knows what the guest did meanwhile
        await port.run(1)
        await port.close()


async def test_a_qemu_that_lost_who_spoke_for_it_gets_another_behind_the_same_fence() -> None:
    async with host("a") as (here, folder):
        place = await here.launch(MACHINE, specification(size=SMALL), incoming=False)
        old = here.connect(place)
        await command(old)
        stop = await old.pause(for_attempt=True)
        await old.release(1)
        before = await old.describe()
        await lost(place)
        with pytest.raises(MachineGone):  # whether the last thing that was asked happened is unknown
            await old.confirm_stopped()
        new = SoftwareHypervisor(folder).connect(place)
        after = await new.attach(2, 2)
        assert (after.instance, after.pid, after.released) == (before.instance, before.pid, 1)
        assert after.pause > stop.pause
        with pytest.raises(CutOff):
            await new.run(1)
        with pytest.raises(CutOff):
            await old.run(2)
        await new.run(2)
        await here.take_away(place, new)
        for port in (old, new):
            await port.close()


async def test_a_waiting_qemu_that_lost_who_spoke_for_it_still_waits() -> None:
    async with host("a") as (here, _):
        place = await here.launch(MACHINE, specification(size=SMALL), incoming=True)
        await lost(place)
        first, second = here.connect(place), here.connect(place)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(looked_at(port)) for port in (first, second)]
        assert "incoming" in {each.result() for each in asked} <= {"incoming", "silent"}, "one of two starts it"
        await first.attach(1, 1)
        with pytest.raises(MachineRefused, match="whole state"):
            await first.run(1)
        for port in (first, second):
            await port.close()


async def looked_at(port: MachinePort) -> str:
    try:
        return (await port.describe()).run_state
    except MachineGone:
        return "silent"


async def test_a_guest_that_was_given_away_and_is_set_going_behind_our_back_is_stopped_again() -> None:
    async with host("a") as (here, _):
        place = await here.launch(MACHINE, specification(*with_door(), size=SMALL), incoming=False)
        port = here.connect(place)
        await command(port)
        await port.pause(for_attempt=True)
        await port.release(1)
        async with own_monitor(place.path) as monitor:
            await monitor.session.tell("cont")
            assert [await monitor.next_event(), await monitor.next_event()] == ["RESUME", "STOP"]
        assert await port.confirm_stopped() == 2, "it is another stop, on which nothing was released"
        await port.close()


async def test_without_its_fence_nobody_speaks_for_a_qemu() -> None:
    async with host("a") as (here, _):
        place = await here.launch(MACHINE, specification(size=SMALL), incoming=False)
        await lost(place)
        (place.path / FENCE_FILE).write_text("{")
        port = here.connect(place)
        with pytest.raises(MachineGone):
            await port.describe()
        await here.take_away(place, None)
        await port.close()


async def test_the_properties_of_a_viommu_are_read_from_qemu_itself(tmp_path: Path) -> None:
    behind = ("-M", "q35,kernel-irqchip=split", "-m", "16M", "-device", "intel-iommu,intremap=on,aw-bits=39")
    async with somebodys_qemu(tmp_path, *behind) as (path, _):
        session = QmpSession(path)
        await session.open()
        found = await parts(session)
        (viommu,) = found.viommus
        assert (viommu.model, viommu.value("aw-bits"), found.vfio, found.disks) == ("intel-iommu", 39, (), ())
        assert found.machine_type.startswith("pc-q35-")
        assert found.version >= (7, 2, 0)
        await session.close()


async def test_disks_that_are_not_shared_and_devices_behind_a_viommu_are_found(tmp_path: Path) -> None:
    image = tmp_path / "root.img"
    image.write_bytes(bytes(1 << 20))
    disk = {"name": "root", "file": str(image)}
    behind = ("-device", "intel-iommu,intremap=on,aw-bits=39", "-device", "e1000e,id=net0")
    async with host("a") as (here, _):
        wanted = specification(*behind, size="64MiB", table={"machine": "q35,kernel-irqchip=split", "disk": [disk]})
        port = here.connect(await here.launch(MACHINE, wanted, incoming=False))
        described = await port.describe()
        assert [(each.code, str(image) in each.message) for each in described.blockers] == [("disk-not-shared", True)]
        await port.close()
