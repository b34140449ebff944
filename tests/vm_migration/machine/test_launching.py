"""A launch that is cut off at any point leaves nothing, and a folder that is being filled is nobody else's."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest

from tests.system.processes import naming
from vm_migration.machine.errors import LaunchFailed, MachineRefused
from vm_migration.machine.launch import launch, remove_abandoned, take_away
from vm_migration.machine.run_directory import RunDirectory
from vmm.assembly.specification import check_specification

MACHINE = UUID("0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01")
SPECIFICATION = check_specification({"name": "cut-off", "memory": {"size": "64MiB"}, "viommu": {"model": "none"}}, "")
SECONDS = 30.0

LAUNCHING = """
import asyncio, sys, threading
from pathlib import Path
from tests.vm_migration.machine.test_launching import MACHINE, SPECIFICATION
from vm_migration.machine import launch
from vm_migration.machine.coming_up import ComingUp
from vm_migration.machine.run_directory import MachineDirectory, RunDirectory

def stand_still(*_):
    print("here", flush=True)
    threading.Event().wait()

setattr({"write_instance": MachineDirectory, "let_go": ComingUp}[sys.argv[2]], sys.argv[2], stand_still)
asyncio.run(launch.launch(RunDirectory(Path(sys.argv[1])), MACHINE, SPECIFICATION, incoming=True))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="viaduct-") as folder:
        yield Path(folder)


def standing_at(stack: ExitStack, folder: Path, step: str) -> "subprocess.Popen[bytes]":
    """Return a process that stands still in the middle of a launch, before a step."""
    command = [sys.executable, "-c", LAUNCHING, str(folder), step]
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
    stack.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    return process


def ended(pids: list[int]) -> bool:
    with ExitStack() as stack:
        waiting = select.poll()
        left = 0
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            stack.callback(os.close, descriptor)
            waiting.register(descriptor, select.POLLIN)
            left += 1
        while left:
            found = waiting.poll(SECONDS * 1000)
            if not found:
                return False
            for descriptor, _ in found:
                waiting.unregister(descriptor)
                left -= 1
    return True


@pytest.mark.parametrize("step", ["let_go", "write_instance"])
async def test_both_processes_end_by_themselves_when_whoever_started_them_is_killed(folder: Path, step: str) -> None:
    """An agent killed between the start of both processes and instance.json left a machine that nobody could find."""
    run = RunDirectory(folder)
    with ExitStack() as stack:
        process = standing_at(stack, folder, step)
        of_machine = [pid for pid, words in naming(folder / "machines", set()).items() if pid != process.pid]
        assert len(of_machine) == 2
        process.kill()
        process.wait()
        assert await asyncio.to_thread(ended, of_machine)
    assert await remove_abandoned(run.of(MACHINE))
    assert list(run.all()) == []


async def test_a_folder_that_is_being_filled_is_nobody_elses_also_while_whoever_fills_it_is_frozen(
    folder: Path,
) -> None:
    run = RunDirectory(folder)
    with ExitStack() as stack:
        process = standing_at(stack, folder, "write_instance")
        process.send_signal(signal.SIGSTOP)
        assert not await remove_abandoned(run.of(MACHINE))
        with pytest.raises(LaunchFailed):
            await launch(run, MACHINE, SPECIFICATION, incoming=True)
        with pytest.raises(MachineRefused):
            await take_away(run.of(MACHINE), None)
        assert run.of(MACHINE).exists()
        pids = [pid for pid in naming(folder / "machines", set()) if pid != process.pid]
        process.kill()
        process.wait()
        assert await asyncio.to_thread(ended, pids)
    place = await launch(run, MACHINE, SPECIFICATION, incoming=True)  # over what the dead one left
    assert place.alive()
    await take_away(place, None)
    assert not place.exists()


async def test_only_the_instance_that_was_meant_is_taken_away(folder: Path) -> None:
    run = RunDirectory(folder)
    place = await launch(run, MACHINE, SPECIFICATION, incoming=True)
    instance = place.instance()
    assert instance is not None
    await take_away(place, None, only="boot:1:1:another")
    assert place.alive()
    await take_away(place, None, only=instance.name)
    assert await asyncio.to_thread(ended, [instance.vmm.pid, instance.host.pid])
    assert not place.exists()
