"""Bringing a software machine's two processes up, and taking them away.

They are sessions of their own: an agent that ends, or is killed, leaves them running. The host process comes first;
it ends by itself when the machine process is gone.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from vm_migration.machine.port import LaunchFailed, MachineError, MachinePort
from vm_migration.machine.run_directory import (
    Instance,
    MachineDirectory,
    ProcessId,
    RunDirectory,
    identify,
    lives,
)
from vmm.assembly.devices import host_configuration
from vmm.assembly.specification import MachineSpecification
from vmm.process.control import HOST_SOCKET, SPECIFICATION_FILE
from vmm.process.description import boot_id

_READY_DEADLINE: Final = 30.0
_BOOT_SECONDS_PER_GIB: Final = 30.0
"""Filling RAM touches every page for the first time, about 10 us each on nested hosts."""
_END_DEADLINE: Final = 10.0


async def launch(
    run: RunDirectory, machine: UUID, specification: MachineSpecification, *, incoming: bool
) -> MachineDirectory:
    """Start a machine's processes and wait until both say that they are ready.

    Raises:
        LaunchFailed: Nothing of the machine is left.
    """
    try:
        directory = run.create(machine)
    except FileExistsError as error:
        raise LaunchFailed(f"Machine {machine} has a folder in the run directory already") from error
    except OSError as error:
        raise LaunchFailed(f"Machine {machine} can have no folder in the run directory: {error}") from error
    started: list[ProcessId] = []
    try:
        (directory.path / SPECIFICATION_FILE).write_bytes(specification.to_json())
        host = await _start_host(directory.path, specification, started)
        arguments = ["--directory", str(directory.path), "--machine", str(machine)]
        if incoming:
            arguments.append("--incoming")
        deadline = _READY_DEADLINE + (0 if incoming else specification.memory.size / (1 << 30) * _BOOT_SECONDS_PER_GIB)
        ready = await _start("vmm.process.main", arguments, directory.path / "vmm.log", started, deadline)
        vmm = started[-1]
        directory.write_instance(Instance(boot_id(), vmm, host, str(ready.get("instance", ""))))
    except BaseException as error:
        for process in reversed(started):
            await end_process(process, kill=True)
        directory.remove()
        if isinstance(error, OSError):
            raise LaunchFailed(f"Machine {machine} could not be started: {error}") from error
        raise
    return directory


async def take_away(directory: MachineDirectory, machine: MachinePort | None) -> None:
    """End a machine's processes, by request where one commands it, else by their ids, and remove its folder."""
    if machine is not None:
        with contextlib.suppress(MachineError):  # it is ended by its id below
            await machine.destroy()
    instance = directory.instance()
    if instance is not None and instance.boot_id == boot_id():
        await end_process(instance.vmm, kill=machine is None)
        await end_process(instance.host, kill=False)
    directory.remove()


async def end_process(process: ProcessId, *, kill: bool) -> None:
    """Wait until a process has ended; kill it at once, or at the deadline."""
    if kill:
        _signal(process, signal.SIGKILL)
    if not await asyncio.to_thread(_wait_gone, process, _END_DEADLINE):
        _signal(process, signal.SIGKILL)
        await asyncio.to_thread(_wait_gone, process, _END_DEADLINE)


async def _start_host(path: Path, specification: MachineSpecification, started: list[ProcessId]) -> ProcessId:
    configuration = msgspec.json.encode(host_configuration(specification)).decode()
    arguments = ["--socket", str(path / HOST_SOCKET), "--configuration", configuration]
    await _start("vfio_host.process.main", arguments, path / "vfio-host.log", started, _READY_DEADLINE)
    return started[-1]


async def _start(
    module: str, arguments: list[str], log: Path, started: list[ProcessId], deadline: float
) -> dict[str, object]:
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
    try:
        started.append(identify(process.pid))
        line = b"" if process.stdout is None else await asyncio.wait_for(process.stdout.readline(), deadline)
        ready: object = json.loads(line) if line else None
    except (TimeoutError, ValueError, ProcessLookupError) as error:
        raise LaunchFailed(f"{module} did not become ready: {error!r}{_tail(log)}") from error
    if not isinstance(ready, dict) or ready.get("event") != "ready":
        raise LaunchFailed(f"{module} ended before it was ready{_tail(log)}")
    return ready


def _tail(log: Path) -> str:
    try:
        text = log.read_text(errors="replace").strip()
    except OSError:
        return ""
    return f": {text[-500:]}" if text else ""


def _signal(process: ProcessId, number: signal.Signals) -> None:
    if lives(process):
        with contextlib.suppress(ProcessLookupError):  # it ended by itself in between
            os.kill(process.pid, number)


def _wait_gone(process: ProcessId, deadline: float) -> bool:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not lives(process):
            return True
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        return bool(ended.poll(deadline * 1000))
    finally:
        os.close(descriptor)
