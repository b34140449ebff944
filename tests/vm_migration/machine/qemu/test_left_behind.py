"""A QEMU that nobody speaks for any more is found by where it works, and ends with its machine's folder."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.system.processes import ended, naming
from tests.vm_migration.machine.qemu.hosts import MACHINE, specification
from tests.vm_migration.machine.qemu.spoken_qmp import Answer, speaking
from tests.vm_migration.machine.qemu.waiting_qemu import commands_of
from vm_migration.daemon.leftovers import leftovers
from vm_migration.handover.journals import Journals
from vm_migration.machine.errors import LaunchFailed, MachineGone
from vm_migration.machine.launch import machine_arguments, remove_abandoned, take_away
from vm_migration.machine.qemu.command_line import Order
from vm_migration.machine.qemu.fence_file import Kept
from vm_migration.machine.qemu.monitor import Monitor
from vm_migration.machine.qemu.process_file import SHIM, left_in, note_started, started_qemu
from vm_migration.machine.qemu.shim import ASK_AGAIN, _first_answer, _run, _serve, end_on_request
from vm_migration.machine.qemu.spawning import QemuProcess
from vm_migration.machine.qemu.stream_tls import FOLDER
from vm_migration.machine.run_directory import Instance, MachineDirectory, RunDirectory, identify
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.process.control import SPECIFICATION_FILE
from vmm.process.identity import boot_id

SECONDS = 20.0
TRIES = 4
CLOCK = 0.01
"""What a loop's clock may be coarse by."""


@pytest.fixture
def run_dir() -> Iterator[Path]:
    # Not pytest's own folder: the path of a machine's socket has room for 107 letters.
    with TemporaryDirectory(prefix="viaduct-") as folder:
        yield Path(folder)


@pytest.fixture
def place(run_dir: Path) -> MachineDirectory:
    return RunDirectory(run_dir).create(MACHINE)


@contextmanager
def working_in(folder: Path, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Have a process that works in a folder, and waits there."""
    command = [sys.executable, "-c", "print(flush=True); input()", *words]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.fixture
def qemu(place: MachineDirectory) -> Iterator["subprocess.Popen[bytes]"]:
    with working_in(place.path, "-uuid", str(MACHINE)) as process:
        yield process


def test_a_test_sees_who_works_below_its_folder_also_after_it_was_removed(
    run_dir: Path, place: MachineDirectory, qemu: "subprocess.Popen[bytes]"
) -> None:
    assert qemu.pid in naming(run_dir, set())
    shutil.rmtree(place.path)
    assert qemu.pid in naming(run_dir, set())


@pytest.mark.parametrize("noted", [True, False])
async def test_an_abandoned_folder_takes_its_qemu_with_it(
    place: MachineDirectory, qemu: "subprocess.Popen[bytes]", noted: bool
) -> None:
    if noted:
        note_started(place.path, identify(qemu.pid))
    assert await remove_abandoned(place)
    assert qemu.wait(SECONDS) == -signal.SIGKILL


async def test_a_folder_that_is_taken_away_without_an_instance_takes_its_qemu_with_it(
    place: MachineDirectory, qemu: "subprocess.Popen[bytes]"
) -> None:
    await take_away(place, None)
    assert qemu.wait(SECONDS) == -signal.SIGKILL
    assert not place.exists()


def test_whoever_only_stands_in_a_machines_folder_is_left_alone(place: MachineDirectory) -> None:
    with working_in(place.path):
        assert left_in(place) == frozenset()


def test_what_was_noted_is_there_as_a_whole(place: MachineDirectory, qemu: "subprocess.Popen[bytes]") -> None:
    note_started(place.path, identify(qemu.pid))
    assert started_qemu(place.path) == identify(qemu.pid)
    assert [each.name for each in place.path.iterdir()] == ["qemu.json"]


def test_a_qemu_that_no_instance_lists_is_left_over(
    run_dir: Path, place: MachineDirectory, qemu: "subprocess.Popen[bytes]"
) -> None:
    shutil.rmtree(place.path)
    found = leftovers(Journals(run_dir / "journal"), SoftwareHypervisor(run_dir), run_dir)
    assert [(each.kind, each.pid, each.machine) for each in found] == [("qemu", qemu.pid, str(MACHINE))]


def test_a_shim_that_is_told_to_end_before_its_qemu_has_answered_takes_it_along(
    run_dir: Path, place: MachineDirectory
) -> None:
    (place.path / SPECIFICATION_FILE).write_bytes(specification().to_json())
    started, program = run_dir / "started", run_dir / "silent-qemu"
    os.mkfifo(started)
    program.write_text(f"#!/bin/sh\necho $$ > {started}\nexec sleep 600\n")
    program.chmod(0o700)
    command = [sys.executable, "-m", SHIM, *machine_arguments(place), "--program", str(program)]
    with ExitStack() as stack:
        shim = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE))
        stack.callback(shim.kill)
        child = identify(int(started.read_text()))
        stack.callback(QemuProcess(child, place.path).kill)
        shim.send_signal(signal.SIGTERM)
        _, said = shim.communicate(timeout=SECONDS)
        assert b"before it was ready" in said
        assert shim.returncode == 1
        assert ended(child.pid, SECONDS)


async def test_a_shim_whose_guard_fails_does_not_end_without_a_word(
    place: MachineDirectory, qemu: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_tell: object) -> None:
        raise RuntimeError("the guard met what nobody thought of")

    wanted = specification()
    assert wanted.qemu is not None
    order = Order("qemu", place.path, MACHINE, wanted, wanted.qemu, incoming=False, adopts=None)
    process = QemuProcess(identify(qemu.pid), place.path / "qmp", qemu)
    commands = commands_of(place.path, Monitor(process.qmp), Kept())
    monkeypatch.setattr(commands, "guard", fails)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(RuntimeError, match="nobody thought of"):
        await _serve(commands, order, process, hold=False)
    assert qemu.poll() is None, "its QEMU goes on, and another shim comes"


async def test_a_qemu_that_hears_nothing_any_more_is_killed_when_its_machine_is_to_end(
    place: MachineDirectory, qemu: "subprocess.Popen[bytes]"
) -> None:
    def hang_up(command: str, _arguments: object) -> Answer:
        if command == "quit":
            spoken.hang_up()
            return None
        return {"return": {"status": "running", "running": True}}

    told: list[str] = []
    async with speaking(place.path / "qmp", hang_up) as spoken:
        monitor = Monitor(place.path / "qmp")
        process = QemuProcess(identify(qemu.pid), place.path / "qmp", qemu)
        await end_on_request(commands_of(place.path, monitor, Kept()), process, told.append)
        await monitor.close()
    assert await asyncio.to_thread(qemu.wait, SECONDS) == -signal.SIGKILL
    assert "gone in the middle of quit" in told[0]


async def test_a_qemu_that_ended_before_anybody_looked_has_ended(place: MachineDirectory) -> None:
    with working_in(place.path) as process:
        gone = QemuProcess(identify(process.pid), place.path / "qmp")
        process.kill()
        process.wait()
        async with asyncio.timeout(SECONDS):
            await gone.end()


async def test_a_qemu_that_lives_and_lost_its_socket_is_asked_for_now_and_then(
    place: MachineDirectory, qemu: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_monitor: Monitor) -> None:
        tries.append(loop.time())
        if len(tries) == TRIES:
            tried.set()
        raise MachineGone("Nobody speaks QMP there")

    tries, tried, loop = list[float](), asyncio.Event(), asyncio.get_running_loop()
    monkeypatch.setattr(Monitor, "require_connection", refused)
    wanted = specification()
    assert wanted.qemu is not None
    order = Order("qemu", place.path, MACHINE, wanted, wanted.qemu, incoming=False, adopts=None)
    process = QemuProcess(identify(qemu.pid), place.path / "qmp")
    asking = asyncio.create_task(_first_answer(order, process, Monitor(process.qmp)))
    async with asyncio.timeout(SECONDS):
        await tried.wait()
    process.kill()
    with pytest.raises(LaunchFailed, match="ended before it answered"):
        await asking
    assert tries[-1] - tries[0] >= (TRIES - 1) * ASK_AGAIN - CLOCK


async def test_a_key_that_an_earlier_life_left_is_gone_before_anything_else_is_tried(place: MachineDirectory) -> None:
    (place.path / FOLDER).mkdir()
    (place.path / FOLDER / "client-key.pem").write_text("secret")
    wanted = specification()
    assert wanted.qemu is not None
    mine = identify(os.getpid())
    order = Order("qemu", place.path, MACHINE, wanted, wanted.qemu, incoming=False, adopts=None)
    with pytest.raises(LaunchFailed, match="Nothing says what"):  # long before its QEMU would have answered
        await _run(order, Instance(boot_id(), mine, mine, "drawn"), hold=False)
    assert not (place.path / FOLDER).exists()
