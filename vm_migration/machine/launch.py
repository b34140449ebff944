"""Bringing a software machine's two processes up, and taking them away.

::

    folder claimed -> both started -> host ready -> "go" to vmm -> vmm ready -> instance.json -> "keep" to both

They are sessions or units of their own (vm_migration.machine.starting): an agent that ends, or is killed, leaves them
running. Both are started at once, since an interpreter takes its time; the machine process holds until the host process
is ready, and that ends by itself when the machine process is gone. Up to "keep" both end by themselves when whoever
started them is gone: what no instance.json names, nobody could find. The claim keeps a folder that is being filled from
everybody else, also while whoever fills it is frozen.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import time
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from vm_migration.machine.port import CutOff, LaunchFailed, MachineError, MachinePort, MachineRefused
from vm_migration.machine.run_directory import (
    Instance,
    MachineDirectory,
    ProcessId,
    RunDirectory,
    identify,
    lives,
)
from vm_migration.machine.starting import OwnSession, Starter
from vm_migration.telemetry import logs
from vmm.assembly.devices import host_configuration
from vmm.assembly.specification import MachineSpecification
from vmm.process.control import HOLD, HOST_SOCKET, SPECIFICATION_FILE
from vmm.process.description import boot_id

_READY_DEADLINE: Final = 30.0
_BOOT_SECONDS_PER_GIB: Final = 30.0
"""Filling RAM touches every page for the first time, about 10 us each on nested hosts."""
_END_DEADLINE: Final = 10.0
_HOST_PATIENCE: Final = 2.0
"""A host process ends by itself when its machine process is gone; whoever waits keeps a journal's lock meanwhile."""
_CLAIM_DEADLINE: Final = 5.0
_CLAIM_POLL: Final = 0.02
_LOGS: Final = {"vfio_host.process.main": "vfio-host.log", "vmm.process.main": "vmm.log"}
_HERE: Final = OwnSession()
_log: Final = logs.get(__name__)


async def launch(
    run: RunDirectory,
    machine: UUID,
    specification: MachineSpecification,
    *,
    incoming: bool,
    starter: Starter = _HERE,
) -> MachineDirectory:
    """Start a machine's processes and wait until both say that they are ready.

    Raises:
        LaunchFailed: Nothing of the machine is left.
    """
    directory = _new_folder(run, machine)
    with directory.claimed() as mine:
        if not mine:
            raise LaunchFailed(f"The folder of machine {machine} was taken away while it was made")
        await _bring_up(directory, specification, starter, incoming=incoming)
    return directory


def remove_abandoned(directory: MachineDirectory) -> bool:
    """Remove a folder whose launch came to nothing, and which nobody is filling; tell whether it did."""
    with directory.claimed() as mine:
        if not mine or directory.instance() is not None:
            return False
        directory.remove()
    return True


def _new_folder(run: RunDirectory, machine: UUID) -> MachineDirectory:
    try:
        try:
            return run.create(machine)
        except FileExistsError:
            if not remove_abandoned(run.of(machine)):
                raise
            return run.create(machine)
    except FileExistsError as error:
        raise LaunchFailed(f"Machine {machine} has a folder in the run directory already") from error
    except OSError as error:
        raise LaunchFailed(f"Machine {machine} can have no folder in the run directory: {error}") from error


async def _bring_up(
    directory: MachineDirectory, specification: MachineSpecification, starter: Starter, *, incoming: bool
) -> None:
    started: list[_Started] = []
    machine = directory.machine
    try:
        (directory.path / SPECIFICATION_FILE).write_bytes(specification.to_json())
        of_host, of_vmm = _host_arguments(directory, specification), _machine_arguments(directory, incoming=incoming)
        host = await _start(starter, "vfio_host.process.main", of_host, directory, started)
        vmm = await _start(starter, "vmm.process.main", of_vmm, directory, started)
        await host.ready(_READY_DEADLINE)
        vmm.let_go()
        booting = 0 if incoming else specification.memory.size / (1 << 30) * _BOOT_SECONDS_PER_GIB
        ready = await vmm.ready(_READY_DEADLINE + booting)
        directory.write_instance(Instance(boot_id(), vmm.id, host.id, str(ready.get("instance", ""))))
        for process in started:
            process.keep()
    except BaseException as error:
        for process in reversed(started):
            await end_process(process.id, kill=True)
            process.close()
        directory.remove()
        if isinstance(error, OSError):
            raise LaunchFailed(f"Machine {machine} could not be started: {error}") from error
        raise


async def take_away(directory: MachineDirectory, machine: MachinePort | None, *, only: str = "") -> None:
    """End a machine's processes, by request where one commands it, else by their ids, and remove its folder.

    Where `only` names an instance, a folder that has another one by now is left as it is.

    Raises:
        CutOff: Somebody newer commands the process; nothing was ended.
        MachineRefused: Somebody else is filling the folder, or taking it away.
    """
    if machine is not None:
        try:
            await machine.destroy()
        except CutOff:
            raise
        except MachineError as error:
            _log.warning("machine does not end by request", machine=str(directory.machine), reason=str(error))
    until = time.monotonic() + _CLAIM_DEADLINE
    while True:
        with directory.claimed() as mine:
            if mine:
                await _end(directory, only, kill=machine is None)
                return
        if not directory.exists():
            return
        if time.monotonic() >= until:
            raise MachineRefused(f"Somebody else is filling the folder of machine {directory.machine}")
        await asyncio.sleep(_CLAIM_POLL)  # whoever fills it is another process


async def _end(directory: MachineDirectory, only: str, *, kill: bool) -> None:
    instance = directory.instance()
    if instance is not None and only not in ("", instance.name):
        _log.warning("folder has another machine process by now", machine=str(directory.machine), wanted=only)
        return
    if instance is not None and instance.boot_id == boot_id():
        await end_process(instance.vmm, kill=kill)
        await end_process(instance.host, kill=False, patience=_HOST_PATIENCE if kill else _END_DEADLINE)
    directory.remove()


async def end_process(process: ProcessId, *, kill: bool, patience: float = _END_DEADLINE) -> None:
    """Wait until a process has ended; kill it at once, or when the patience, in seconds, is over."""
    if kill:
        _signal(process, signal.SIGKILL)
    if not await asyncio.to_thread(_wait_gone, process, patience):
        _signal(process, signal.SIGKILL)
        await asyncio.to_thread(_wait_gone, process, _END_DEADLINE)


@dataclass(frozen=True, slots=True)
class _Started:
    """A process that is on its way up."""

    module: str
    id: ProcessId
    stdin: FileIO
    stdout: FileIO
    log: Path

    def let_go(self) -> None:
        """Let a machine process that holds go on; without this word, and when this process is killed, it ends."""
        self._tell(b"go\n")

    def keep(self) -> None:
        """Have it outlive this process from here on."""
        self._tell(b"keep\n")
        self.close()

    def _tell(self, word: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended: `ready` says so, or whoever looks at it next
            self.stdin.write(word)

    def close(self) -> None:
        """Close what leads to it."""
        self.stdin.close()
        self.stdout.close()

    async def ready(self, deadline: float) -> dict[str, object]:
        """Wait for the line that says that it is ready, and return what it says.

        Raises:
            LaunchFailed: It ended instead, or took more seconds than that.
        """
        try:
            line = await asyncio.to_thread(_first_line, self.stdout, time.monotonic() + deadline)
            said: object = json.loads(line) if line else None
        except (TimeoutError, ValueError) as error:
            raise LaunchFailed(f"{self.module} did not become ready: {error!r}{_tail(self.log)}") from error
        if not isinstance(said, dict) or said.get("event") != "ready":
            raise LaunchFailed(f"{self.module} ended before it was ready{_tail(self.log)}")
        return said


def _host_arguments(directory: MachineDirectory, specification: MachineSpecification) -> list[str]:
    configuration = msgspec.json.encode(host_configuration(specification)).decode()
    return ["--socket", str(directory.path / HOST_SOCKET), "--configuration", configuration, HOLD]


def _machine_arguments(directory: MachineDirectory, *, incoming: bool) -> list[str]:
    arguments = ["--directory", str(directory.path), "--machine", str(directory.machine), HOLD]
    return [*arguments, "--incoming"] if incoming else arguments


async def _start(
    starter: Starter, module: str, arguments: list[str], directory: MachineDirectory, started: list[_Started]
) -> _Started:
    log = directory.path / _LOGS[module]
    with contextlib.ExitStack() as kept, contextlib.ExitStack() as given:
        its_stdin, stdin = _pipe(given, kept)
        stdout, its_stdout = _pipe(kept, given)
        errors = given.enter_context(log.open("ab"))
        pid = await starter.start(module, arguments, (its_stdin.fileno(), its_stdout.fileno(), errors.fileno()))
        started.append(_Started(module, identify(pid), stdin, stdout, log))
        kept.pop_all()
    return started[-1]


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    read, write = os.pipe()
    return reader.enter_context(FileIO(read, "r")), writer.enter_context(FileIO(write, "w"))


def _first_line(stdout: FileIO, until: float) -> bytes:
    """Return what a process writes first, or what it has written when it ends. TimeoutError past the deadline."""
    line = b""
    written = select.poll()
    written.register(stdout, select.POLLIN)
    while not line.endswith(b"\n"):
        if not written.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError
        part = os.read(stdout.fileno(), 4096)
        if not part:
            break
        line += part
    return line


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
