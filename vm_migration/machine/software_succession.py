"""Another `viaduct-vmm` beside the one that has a machine, in the machine's own folder.

::

    update.sock      where the new process waits for the old one, for as long as it waits
    vmm.next.sock    the new one's control socket, until it is renamed over vmm.sock
"""

import contextlib
import sys
from pathlib import Path
from typing import Final

import msgspec

from vm_migration.machine.coming_up import ComingUp, start
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.launch import READY_DEADLINE, end_process, machine_arguments
from vm_migration.machine.port import LaunchFailed, MachineGone, MachinePort
from vm_migration.machine.run_directory import Instance, RunDirectory, lives, process_named
from vm_migration.machine.software import SoftwareMachine
from vm_migration.machine.starting import OwnSession, OwnUnit, Starter
from vmm.process.control import CONTROL_SOCKET, NEXT_CONTROL_SOCKET
from vmm.process.description import boot_id

_MODULE: Final = "vmm.process.main"
UPDATE_SOCKET: Final = "update.sock"
KILL_DEADLINE: Final = 10.0


class SoftwareSuccessor:
    """Implements `vm_migration.machine.succession.Successor`."""

    def __init__(self, process: ComingUp, before: Instance, path: Path) -> None:
        self._process: Final = process
        self._before: Final = before
        self._path: Final = path

    @property
    def path(self) -> Path:
        """Where it waits."""
        return self._path

    async def prepared(self) -> None:
        """Wait for the line that says so."""
        await self._process.says("prepared", READY_DEADLINE)

    async def ready(self) -> str:
        """Wait for the line that says so, which tells what it drew."""
        said = await self._process.says("ready", READY_DEADLINE)
        token = str(said.get("instance", ""))
        return Instance(boot_id(), self._process.id, self._before.host, token).name

    def keep(self) -> None:
        """Have it outlive this process."""
        self._process.keep()

    def close(self) -> None:
        """Close what leads to it."""
        self._process.close()

    async def end(self) -> None:
        """Kill it."""
        self.close()
        await end_process(self._process.id, kill=True)


class SoftwareSuccession:
    """Implements `vm_migration.machine.succession.Succession`."""

    def __init__(self, run_dir: Path, units: Path | None = None) -> None:
        """`units` is as SoftwareHypervisor's."""
        self._run: Final = RunDirectory(run_dir)
        self._starter: Final[Starter] = OwnSession() if units is None else OwnUnit(units)

    def program(self) -> tuple[str, ...]:
        """Return this interpreter's."""
        return (sys.executable, "-m", _MODULE)

    async def start(self, place: MachinePlace) -> SoftwareSuccessor:
        """Start one, and wait until it listens."""
        directory = self._run.of(place.machine)
        before = directory.instance()
        if before is None:
            raise LaunchFailed(f"Machine {place.machine} has no process that another could take it over from")
        path = directory.path / UPDATE_SOCKET
        arguments = [*machine_arguments(directory), "--adopt", str(path)]
        started: list[ComingUp] = []
        try:
            process = await start(self._starter, _MODULE, arguments, directory, started)
            process.let_go()
            await process.says("waiting", READY_DEADLINE)
        except BaseException as error:
            for each in started:
                await end_process(each.id, kill=True)
                each.close()
            if isinstance(error, OSError):
                raise LaunchFailed(f"No other process could be started for machine {place.machine}: {error}") from error
            raise
        return SoftwareSuccessor(process, before, path)

    def connect(self, place: MachinePlace) -> MachinePort:
        """Return the port over the new process's own socket."""
        return SoftwareMachine(place.path, NEXT_CONTROL_SOCKET)

    def put_in_place(self, place: MachinePlace, name: str) -> None:
        """Rename its socket over the machine's, then name it in instance.json."""
        directory = self._run.of(place.machine)
        before, process = directory.instance(), process_named(name)
        if before is None or process is None:
            raise MachineGone(f"Machine {place.machine} has no place in which process {name} could be put")
        if before.name == name:
            return
        with contextlib.suppress(FileNotFoundError):  # it was renamed already
            (directory.path / NEXT_CONTROL_SOCKET).rename(directory.path / CONTROL_SOCKET)
        token = name.rpartition(":")[2]
        directory.write_instance(msgspec.structs.replace(before, vmm=process, token=token))

    async def end(self, name: str, *, patience: float = 0.0) -> None:
        """Wait for it, and kill it."""
        process = process_named(name)
        if process is not None and name.startswith(f"{boot_id()}:") and lives(process):
            await end_process(process, kill=not patience, patience=patience or KILL_DEADLINE)
