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
import os
import select
import signal
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Final
from uuid import UUID

import msgspec

from vm_migration.machine.coming_up import ComingUp, start
from vm_migration.machine.errors import CutOff, LaunchFailed, MachineError, MachineRefused
from vm_migration.machine.port import MachinePort
from vm_migration.machine.qemu.process_file import SHIM, left_in
from vm_migration.machine.qemu.programs import program_for
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
from vmm.assembly.host_configuration import host_configuration
from vmm.assembly.qemu_specification import QemuSpecification
from vmm.assembly.specification import MachineSpecification
from vmm.process.control import HOLD, HOST_SOCKET, SPECIFICATION_FILE
from vmm.process.identity import boot_id

READY_DEADLINE: Final = 30.0
"""Seconds for a process to say the next thing on its way up."""
_BOOT_SECONDS_PER_GIB: Final = 30.0
"""Filling RAM touches every page for the first time, about 10 us each on nested hosts."""
_END_DEADLINE: Final = 10.0
HOST_PATIENCE: Final = 2.0
"""A host process ends by itself when its machine process is gone; whoever waits keeps a journal's lock meanwhile."""
_CLAIM_DEADLINE: Final = 5.0
_CLAIM_POLL: Final = 0.02
_HERE: Final = OwnSession()
_log: Final = logs.get(__name__)


async def launch(
    run: RunDirectory,
    machine: UUID,
    specification: MachineSpecification,
    *,
    incoming: bool,
    starter: Starter = _HERE,
    qemu: Collection[str] = (),
) -> MachineDirectory:
    """Start a machine's processes and wait until both say that they are ready.

    `qemu` are the programs that may run as QEMU machines here.

    Raises:
        LaunchFailed: Nothing of the machine is left.
    """
    directory = await _new_folder(run, machine)
    with directory.claimed() as mine:
        if not mine:
            raise LaunchFailed(f"The folder of machine {machine} was taken away while it was made")
        await _bring_up(_Birth(directory, specification, incoming, starter, qemu))
    return directory


async def remove_abandoned(directory: MachineDirectory) -> bool:
    """Remove a folder whose launch came to nothing, and which nobody is filling; tell whether it did.

    A QEMU that was started for it ends first: nobody would find it any more.
    """
    with directory.claimed() as mine:
        if not mine or directory.instance() is not None:
            return False
        await _remove(directory)
    return True


async def _remove(directory: MachineDirectory) -> None:
    for left in await asyncio.to_thread(left_in, directory):
        await end_process(left, kill=True)
    directory.remove()


async def _new_folder(run: RunDirectory, machine: UUID) -> MachineDirectory:
    try:
        try:
            return run.create(machine)
        except FileExistsError:
            if not await remove_abandoned(run.of(machine)):
                raise
            return run.create(machine)
    except FileExistsError as error:
        raise LaunchFailed(f"Machine {machine} has a folder in the run directory already") from error
    except OSError as error:
        raise LaunchFailed(f"Machine {machine} can have no folder in the run directory: {error}") from error


@dataclass(frozen=True, slots=True)
class _Birth:
    """A machine that is being brought up, and the processes that were started for it."""

    directory: MachineDirectory
    specification: MachineSpecification
    incoming: bool
    starter: Starter
    qemu: Collection[str]
    started: list[ComingUp] = field(default_factory=list)

    @property
    def arguments(self) -> list[str]:
        return machine_arguments(self.directory, incoming=self.incoming)

    async def start(self, module: str, arguments: list[str]) -> ComingUp:
        return await start(self.starter, module, arguments, self.directory, self.started)


async def _bring_up(birth: _Birth) -> None:
    directory = birth.directory
    try:
        (directory.path / SPECIFICATION_FILE).write_bytes(birth.specification.to_json())
        qemu = birth.specification.qemu
        directory.write_instance(await _model(birth) if qemu is None else await _qemu(birth, qemu))
        for process in birth.started:
            process.keep()
    except BaseException as error:
        await end_all(birth.started)
        await _remove(directory)
        if isinstance(error, OSError):
            raise LaunchFailed(f"Machine {directory.machine} could not be started: {error}") from error
        raise


async def _model(birth: _Birth) -> Instance:
    touching = 0 if birth.incoming else _touching(birth.specification)
    wanted = birth.specification
    return await start_model(
        birth.directory, wanted, birth.starter, birth.started, arguments=birth.arguments, touching=touching
    )


async def start_model(
    directory: MachineDirectory,
    specification: MachineSpecification,
    starter: Starter,
    started: list[ComingUp],
    *,
    arguments: list[str],
    touching: float = 0.0,
) -> Instance:
    """Start both processes of a machine, note them among those that were started, and wait until they are ready.

    `arguments` are the machine process's; it may take `touching` seconds longer than usual.

    Raises:
        LaunchFailed, OSError: They are not; what was started is among those that were.
    """
    host = await start(starter, "vfio_host.process.main", _host_arguments(directory, specification), directory, started)
    vmm = await start(starter, "vmm.process.main", arguments, directory, started)
    await host.says("ready", READY_DEADLINE)
    vmm.let_go()
    ready = await vmm.says("ready", READY_DEADLINE + touching)
    return Instance(boot_id(), vmm.id, host.id, str(ready.get("instance", "")))


@contextlib.asynccontextmanager
async def ended_unless_up(machine: UUID) -> AsyncIterator[list[ComingUp]]:
    """Collect the processes that are started for a machine; where it comes to nothing they are ended.

    Raises:
        LaunchFailed: The kernel refused something.
    """
    started: list[ComingUp] = []
    try:
        yield started
    except BaseException as error:
        await end_all(started)
        if isinstance(error, OSError):
            raise LaunchFailed(f"Machine {machine} could not be started: {error}") from error
        raise


async def end_all(started: list[ComingUp]) -> None:
    """Kill processes that were started, the last one first."""
    for process in reversed(started):
        await end_process(process.id, kill=True)
        process.close()


async def _qemu(birth: _Birth, wanted: QemuSpecification) -> Instance:
    program = program_for(wanted.binary, birth.qemu)
    if program is None:
        raise LaunchFailed(f"{wanted.binary} is not among the programs that [offer] qemu lists on this host")
    if find_spec("qemu") is None or find_spec("qemu.qmp") is None:
        raise LaunchFailed("QEMU machines need viaduct[qemu] on their hosts: pip install 'viaduct[qemu]'")
    shim = await birth.start(SHIM, [*birth.arguments, "--program", program])
    ready = await shim.says("ready", READY_DEADLINE + _touching(birth.specification))
    pid = ready.get("pid")
    if not isinstance(pid, int):
        raise LaunchFailed("The process beside QEMU does not say which one that is")
    return Instance(boot_id(), identify(pid), shim.id, str(ready.get("instance", "")))


def _touching(specification: MachineSpecification) -> float:
    """Return how many seconds touching all of RAM for the first time may take."""
    return specification.memory.size / (1 << 30) * _BOOT_SECONDS_PER_GIB


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
        await end_process(instance.host, kill=False, patience=HOST_PATIENCE if kill else _END_DEADLINE)
    await _remove(directory)


async def end_process(process: ProcessId, *, kill: bool, patience: float = _END_DEADLINE) -> None:
    """Wait until a process has ended; kill it at once, or when the patience, in seconds, is over."""
    if kill:
        _signal(process, signal.SIGKILL)
    if not await asyncio.to_thread(_wait_gone, process, patience):
        _signal(process, signal.SIGKILL)
        await asyncio.to_thread(_wait_gone, process, _END_DEADLINE)


def _host_arguments(directory: MachineDirectory, specification: MachineSpecification) -> list[str]:
    configuration = msgspec.json.encode(host_configuration(specification)).decode()
    return ["--socket", str(directory.path / HOST_SOCKET), "--configuration", configuration, HOLD]


def machine_arguments(directory: MachineDirectory, *, incoming: bool = False) -> list[str]:
    """Return what a machine process is started with."""
    arguments = ["--directory", str(directory.path), "--machine", str(directory.machine), HOLD]
    return [*arguments, "--incoming"] if incoming else arguments


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
