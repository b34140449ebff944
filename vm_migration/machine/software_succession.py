"""Another `viaduct-vmm` beside the one that has a machine, in the machine's own folder.

::

    update.sock      where the new process waits for the old one, for as long as it waits
    vmm.next.sock    the new one's control socket, until it is renamed over vmm.sock
"""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from vm_migration.machine.coming_up import ComingUp, start
from vm_migration.machine.errors import LaunchFailed, MachineGone
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.launch import READY_DEADLINE, end_process, ended_unless_up, machine_arguments
from vm_migration.machine.port import MachinePort
from vm_migration.machine.run_directory import Instance, RunDirectory, lives, process_named
from vm_migration.machine.software import SoftwareMachine
from vm_migration.machine.starting import OwnSession, OwnUnit, Starter
from vm_migration.machine.waiting_in_files import WaitingPlace, waiting_place, waits
from vm_migration.machine.waking import WokenMachine, wake
from vm_migration.telemetry import logs
from vmm.assembly.specification import parse_specification
from vmm.process.control import CONTROL_SOCKET, NEXT_CONTROL_SOCKET
from vmm.process.identity import boot_id
from vmm.update import suspended_machine

_log: Final = logs.get(__name__)
_MODULE: Final = "vmm.process.main"
UPDATE_SOCKET: Final = "update.sock"
KILL_DEADLINE: Final = 10.0
LOOK_SECONDS: Final = 5.0
"""For which files are looked at; one that is not answered for then is like one that cannot be read."""


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
        self._believed: Final[Counter[UUID]] = Counter()
        self._looks: Final[dict[tuple[WaitingPlace, int, bool], asyncio.Task[bool | None]]] = {}
        """What files are being looked at: a thread is held by each, for as long as a file system does not answer."""

    def program(self) -> tuple[str, ...]:
        """Return this interpreter's."""
        return (sys.executable, "-m", _MODULE)

    async def start(self, place: MachinePlace, *, rehearses: bool = False) -> SoftwareSuccessor:
        """Start one, and wait until it listens."""
        directory = self._run.of(place.machine)
        before = directory.instance()
        if before is None:
            raise LaunchFailed(f"Machine {place.machine} has no process that another could take it over from")
        path = directory.path / UPDATE_SOCKET
        arguments = [*machine_arguments(directory), "--rehearse" if rehearses else "--adopt", str(path)]
        async with ended_unless_up(place.machine) as started:
            process = await start(self._starter, _MODULE, arguments, directory, started)
            process.let_go()
            await process.says("waiting", READY_DEADLINE)
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

    async def waiting_place(self, specification: str) -> WaitingPlace | None:
        """Return the place beside its RAM's."""
        return await asyncio.to_thread(waiting_place, parse_specification(specification.encode()))

    async def waits(self, place: MachinePlace, specification: str, where: WaitingPlace, pause: int) -> bool | None:
        """Look at both files; while one look gets no answer, no other is taken."""
        believed = self._believed[place.machine] > 0
        key = (where, pause, believed)
        if key not in self._looks:
            wanted = parse_specification(specification.encode())
            look = asyncio.to_thread(waits, place.machine, wanted, where, pause, believed=believed)
            self._looks[key] = asyncio.create_task(look, name=f"look at {where.path}")
            self._looks[key].add_done_callback(lambda _: self._looks.pop(key, None))
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await asyncio.shield(self._looks[key])
        except TimeoutError:
            return None

    @contextlib.contextmanager
    def believing(self, machine: UUID) -> Iterator[None]:
        """Believe it in every look that begins meanwhile, of whoever says it for as long."""
        self._believed[machine] += 1
        try:
            yield
        finally:
            self._believed[machine] -= 1
            if not self._believed[machine]:
                del self._believed[machine]

    async def forget(self, place: MachinePlace, specification: str) -> None:
        """Remove it, and what was being written, where either names the machine."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                where = await self.waiting_place(specification)
                if where is not None:
                    await asyncio.to_thread(suspended_machine.forget, where.path, str(place.machine))
        except (OSError, TimeoutError) as error:
            _log.warning("file of a machine that is lost stays", machine=str(place.machine), reason=repr(error))

    async def wake(self, place: MachinePlace, specification: str, path: Path) -> WokenMachine:
        """Start both processes."""
        return await wake(self._run, self._starter, place.machine, parse_specification(specification.encode()), path)
