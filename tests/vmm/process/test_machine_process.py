"""A machine alone: its two real processes, commanded over the real control socket."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from vfio_host.interface.channel import ChannelClosed, connect
from vfio_host.interface.configuration import DeviceConfiguration, HostConfiguration
from vm_migration.machine import launch as launching
from vm_migration.machine.errors import CutOff, LaunchFailed, MachineGone, MachineRefused
from vm_migration.machine.launch import launch, take_away
from vm_migration.machine.run_directory import MachineDirectory, RunDirectory, lives
from vm_migration.machine.software import SoftwareMachine
from vmm.assembly.specification import MachineSpecification, parse_specification
from vmm.guest.console import GuestAction
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.process.control import (
    CONTROL_SOCKET,
    HOLD,
    SPECIFICATION_FILE,
    THROTTLE_SECONDS,
    GuestCommand,
    encode,
)

MIB = 1 << 20


def specification(**device: object) -> MachineSpecification:
    document = {
        "name": "alone",
        "memory": {"size": 64 * MIB},
        "guest": {"cpu_dirty_rate": 10 * MIB, "working_set": 16 * MIB},
        "device": [{"name": "qat0", "model": "qat", "address": "00:04.0", "dma_rate": 8 * MIB, **device}],
    }
    return parse_specification(json.dumps(document).encode())


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[MachineDirectory]:
    started = await launch(RunDirectory(tmp_path), uuid4(), specification(), incoming=False)
    yield started
    await take_away(started, None)


@pytest.fixture
async def machine(directory: MachineDirectory) -> AsyncIterator[SoftwareMachine]:
    port = SoftwareMachine(directory.path)
    await port.attach(1, 1)
    yield port
    await port.close()


async def dirtied(machine: SoftwareMachine, pages: int) -> DirtyBitmap:
    """Harvest until so many pages were seen; the machine's own work is the event that is waited for."""
    first = await machine.harvest()
    seen = first.cpu | first.dma
    while seen.count() < pages:
        harvest = await machine.harvest()
        assert harvest.failure is None
        seen.merge(harvest.cpu | harvest.dma)
    return seen


async def test_harvests_miss_nothing_that_the_kernel_saw(machine: SoftwareMachine) -> None:
    await machine.start_tracking()
    assert await machine.report_writes() is not None, "this machine's kernel has the witness"
    seen = await dirtied(machine, 2000)
    await machine.pause(for_attempt=True)
    last = await machine.harvest()
    seen.merge(last.cpu | last.dma)
    written = await machine.report_writes()
    assert written is not None
    assert not written - seen
    assert not (await machine.harvest()).cpu, "nothing writes after both writers have stopped"


async def test_a_pause_stops_both_writers_and_a_run_goes_on_without_an_error(machine: SoftwareMachine) -> None:
    await machine.start_tracking()
    await dirtied(machine, 500)
    stop = await machine.pause(for_attempt=True)
    assert (stop.pause, stop.was_running) == (1, True)
    assert await machine.confirm_stopped() == 1
    before = (await machine.describe()).guest.jobs_done
    executed = await machine.run(1)
    assert executed > stop.last_executed_ns
    await dirtied(machine, 1500)
    guest = (await machine.describe()).guest
    assert guest.errors == 0
    assert guest.jobs_done >= before


async def test_a_newer_controller_cuts_the_older_off(machine: SoftwareMachine, directory: MachineDirectory) -> None:
    newer = SoftwareMachine(directory.path)
    await newer.attach(1, 2)
    with pytest.raises(CutOff):
        await machine.pause(for_attempt=False)
    assert (await newer.describe()).run_state == "running"
    stale = SoftwareMachine(directory.path)
    with pytest.raises(CutOff):
        await stale.attach(1, 1)
    with pytest.raises(CutOff):
        await stale.pause(for_attempt=False)
    await newer.close()
    await stale.close()


async def test_a_released_machine_never_runs_at_that_epoch_again(machine: SoftwareMachine) -> None:
    with pytest.raises(MachineRefused, match="runs"):
        await machine.release(2)
    await machine.pause(for_attempt=True)
    await machine.release(2)
    for epoch in (1, 2):
        with pytest.raises(CutOff):
            await machine.run(epoch)
    with pytest.raises(CutOff):
        await machine.stay_paused(2)
    await machine.run(3)


async def test_a_paused_machine_stays_paused_through_an_attempt_that_ends(machine: SoftwareMachine) -> None:
    await machine.pause(for_attempt=False)
    await machine.start_tracking()
    stop = await machine.pause(for_attempt=True)
    assert not stop.was_running
    await machine.stay_paused(1)
    await machine.stop_tracking()
    assert (await machine.describe()).run_state == "paused"
    await machine.run(1)
    assert (await machine.describe()).guest.errors == 0


async def move_device_data(source: SoftwareMachine, destination: SoftwareMachine, budget: int = 1000) -> int:
    """Move what the source's devices have to tell now; return how much it was."""
    moved = 0
    while (found := await source.read_device_data(budget)).records:
        await destination.write_device_data(found.records)
        moved += sum(len(record.data) for record in found.records)
    return moved


@pytest.mark.parametrize("device", [{}, {"backend": "type1", "enable_migration": "on"}])
async def test_a_state_that_was_saved_is_loaded_by_an_equal_machine(tmp_path: Path, device: dict[str, object]) -> None:
    run, made = RunDirectory(tmp_path), specification(**device)
    source = await launch(run, uuid4(), made, incoming=False)
    target = await launch(run, uuid4(), made, incoming=True)
    one, other = SoftwareMachine(source.path), SoftwareMachine(target.path)
    try:
        await one.attach(1, 1)
        await other.attach(2, 1)
        await one.start_tracking()
        assert (await one.read_device_data(10)).initial_pending == ("qat0",)
        await one.start_tracking()  # another attempt, which begins anew
        assert await move_device_data(one, other) > 0
        assert (await one.read_device_data(100)).initial_pending == ()
        await dirtied(one, 1000)
        stop = await one.pause(for_attempt=True)
        with pytest.raises(MachineRefused, match="not been read"):
            await one.save()
        assert await move_device_data(one, other) > 0
        assert (await one.read_device_data(100)).complete
        ram, copy = await one.ram(), await other.ram()
        copy.words[:] = ram.words
        await other.load(await one.save(), stop.pause)
        done = (await one.describe()).guest.jobs_done
        await other.run(2)
        await other.start_tracking()
        await dirtied(other, 1000)
        guest = (await other.describe()).guest
        assert guest.errors == 0
        assert guest.jobs_done > done
        assert (await other.pause(for_attempt=True)).pause == stop.pause + 1
        ram.close()
        copy.close()
    finally:
        await take_away(source, one)
        await take_away(target, other)
        await one.close()
        await other.close()


async def test_a_failed_attempt_leaves_devices_at_work(machine: SoftwareMachine) -> None:
    await machine.start_tracking()
    assert (await machine.read_device_data(1 << 20)).records
    await machine.stop_tracking()
    assert not (await machine.read_device_data(1 << 20)).records
    done = (await machine.describe()).guest.jobs_done
    await machine.start_tracking()
    await machine.pause(for_attempt=True)
    assert (await machine.read_device_data(1 << 20)).complete
    await machine.run(1)
    await machine.stop_tracking()
    while (await machine.describe()).guest.jobs_done <= done:
        pass  # the machine's own work is the event that is waited for
    assert (await machine.describe()).guest.errors == 0


async def test_a_measurement_of_the_dirty_rate_puts_no_device_into_pre_copy(machine: SoftwareMachine) -> None:
    await machine.start_tracking("dirty-rate")
    await dirtied(machine, 100)
    found = await machine.read_device_data(1 << 20)
    assert (found.records, found.initial_pending) == ((), ())
    assert found.stop_copy_bytes > 0
    await machine.stop_tracking()


async def test_an_incoming_machine_refuses_what_is_no_state_and_does_not_run_it(tmp_path: Path) -> None:
    target = await launch(RunDirectory(tmp_path), uuid4(), specification(), incoming=True)
    port = SoftwareMachine(target.path)
    try:
        await port.attach(1, 1)
        for nonsense in (b"nonsense", b"\x95\x02\x93\xa5\xff"):
            with pytest.raises(MachineRefused, match="cannot be read"):
                await port.load(nonsense, 1)
        assert (await port.describe()).run_state == "incoming"
    finally:
        await take_away(target, port)
        await port.close()


async def test_a_request_that_is_no_text_costs_its_own_connection_only(
    machine: SoftwareMachine, directory: MachineDirectory
) -> None:
    request = encode(GuestCommand(action=GuestAction.QUIET, device="qat0")).replace(b"qat0", b"\xff\xff\xff\xff")
    stranger = connect(directory.path / CONTROL_SOCKET, 10.0)
    try:
        stranger.send(request)
        with pytest.raises(ChannelClosed):
            stranger.receive()
    finally:
        stranger.close()
    assert (await machine.describe()).run_state == "running"


async def test_sigterm_ends_a_machine_that_waits_and_its_host_process_follows(tmp_path: Path) -> None:
    target = await launch(RunDirectory(tmp_path), uuid4(), specification(), incoming=True)
    instance = target.instance()
    assert instance is not None
    gone = [os.pidfd_open(process.pid) for process in (instance.vmm, instance.host)]
    os.kill(instance.vmm.pid, signal.SIGTERM)
    loop = asyncio.get_running_loop()
    for descriptor in gone:
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        async with asyncio.timeout(10):
            await ended.wait()
        loop.remove_reader(descriptor)
        os.close(descriptor)
    assert not lives(instance.vmm)
    port = SoftwareMachine(target.path)
    with pytest.raises(MachineGone):
        await port.describe()
    await port.close()
    await take_away(target, None)


async def test_a_machine_that_cannot_come_up_leaves_nothing(tmp_path: Path) -> None:
    document = specification().model_dump(mode="json")
    document["memory"]["image"] = str(tmp_path / "missing.img")
    run = RunDirectory(tmp_path / "run")
    wrong = parse_specification(json.dumps(document).encode())
    with pytest.raises(LaunchFailed, match=r"missing\.img"):
        await launch(run, uuid4(), wrong, incoming=False)
    assert list(run.all()) == []


async def test_a_host_process_that_does_not_come_up_takes_its_machine_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = DeviceConfiguration(name="qat0", model="qat")
    monkeypatch.setattr(launching, "host_configuration", lambda _: HostConfiguration(devices=(twice, twice)))
    run = RunDirectory(tmp_path)
    with pytest.raises(LaunchFailed, match="Configuration of the host is invalid"):
        await launch(run, uuid4(), specification(), incoming=False)
    assert list(run.all()) == []
    assert not processes_that_name(tmp_path)


def processes_that_name(path: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended in between
            if str(path).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def test_a_machine_process_whose_starter_is_gone_before_the_host_is_ready_ends(tmp_path: Path) -> None:
    """An agent that is killed in the middle of a launch must not leave a machine that nobody knows of."""
    (tmp_path / SPECIFICATION_FILE).write_bytes(specification().to_json())
    command = [sys.executable, "-m", "vmm.process.main", "--directory", str(tmp_path), "--machine", str(uuid4()), HOLD]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "whoever started it was gone" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == [SPECIFICATION_FILE]


async def test_time_taken_from_vcpus_is_given_back_when_the_agents_connection_closes(
    directory: MachineDirectory, machine: SoftwareMachine
) -> None:
    """An agent that is killed gives nothing back itself."""
    agent = SoftwareMachine(directory.path)
    await agent.attach(1, 2)
    await agent.start_tracking()
    await agent.throttle(80)
    assert (await machine.describe()).throttle_percent == 80
    await agent.close()
    async with asyncio.timeout(THROTTLE_SECONDS - 1):  # after which it would be given back all the same
        while (await machine.describe()).throttle_percent:
            pass
    assert (await machine.describe()).run_state == "running"
