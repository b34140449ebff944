"""Machine processes of simulated hosts: the real commands of a machine process, over a guest that is counted.

What is asked of a machine goes through vmm.process.commands, as in `viaduct-vmm`: the fence, the pause numbers and the
refusals are the real ones. A port is vm_migration.machine.software, whose socket and thread are simulated: a request
that has left is served although its sender was killed, frozen or cancelled meanwhile.
"""

import asyncio
import contextvars
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast
from uuid import UUID

from tests.simulation.guest import PAGES, Guest, Lineage
from tests.simulation.virtual_loop import Process, VirtualLoop
from vfio_host.interface.channel import close_all
from vm_migration.machine.errors import CutOff, LaunchFailed, MachineError, MachineGone, MachineRefused
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.port import MachinePort
from vm_migration.machine.run_directory import Instance, ProcessId
from vm_migration.machine.software import SoftwareMachine
from vmm.assembly.machine import Machine
from vmm.assembly.specification import MachineSpecification
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.process import control
from vmm.process.commands import Commands
from vmm.process.control import AnyReply, AnyRequest
from vmm.process.controllers import Controller
from vmm.process.identity import Identity

_WORLD: Final = contextvars.Context()
"""Where what no process does is done."""


class Watch:
    """What is told of every change of a machine's process; see tests.simulation.invariants."""

    def launched(self, machine: "MachineProcess") -> None:
        """Tell that a process came up."""

    def runs(self, machine: "MachineProcess") -> None:
        """Tell that the guest is about to run."""

    def stands(self, machine: "MachineProcess", why: str) -> None:
        """Tell that the guest was stopped, or its process ended by no agent's hand."""

    def freed(self, machine: "MachineProcess") -> None:
        """Tell that an agent is about to end a process."""


class _Commands(Commands):
    """The real commands on the simulation's clock, with a witness that is the guest's own."""

    def __init__(self, guest: Guest, identity: Identity, loop: VirtualLoop, *, incoming: bool, witness: bool) -> None:
        super().__init__(cast("Machine", guest), identity, incoming=incoming)
        self.guest: Final = guest
        self._loop: Final = loop
        self._witness_refused = not witness

    def step(self) -> int:
        """Let the guest write once."""
        self.guest.write()
        self._last_executed_ns = round(self._loop.time() * 1e9)
        return self._last_executed_ns

    @property
    def incoming(self) -> bool:
        return self._incoming

    @property
    def loaded(self) -> bool:
        return self._loaded

    def _report_writes(self) -> bytes | None:
        if self._witness_refused:
            return None
        seen, self.guest.witnessed = self.guest.witnessed, set()
        if seen is None:
            return DirtyBitmap.full(PAGES).to_bytes()
        pages = DirtyBitmap(PAGES)
        for page in seen:
            pages.set_run(page, 1)
        return pages.to_bytes()


class MachineProcess:
    """One machine process of a host; it outlives every agent."""

    def __init__(
        self, host: "HostMachines", machine: UUID, guest: Guest, instance: Instance, *, incoming: bool
    ) -> None:
        identity = Identity(str(machine), instance.boot_id, instance.vmm.pid, instance.token)
        self.host: Final = host
        self.machine: Final = str(machine)
        self.guest: Final = guest
        self.instance: Final = instance
        self.alive = True
        self.silent_until = 0.0
        self.commands: Final = _Commands(guest, identity, host.loop, incoming=incoming, witness=host.witness)

    @property
    def running(self) -> bool:
        """Whether the guest executes."""
        return self.alive and self.guest.running

    @property
    def whole(self) -> bool:
        """Whether this process could run the guest with every write."""
        loaded = not self.commands.incoming or self.commands.loaded
        return self.alive and loaded and not self.guest.lacks()

    def serve(self, controller: Controller, request: AnyRequest) -> tuple[AnyReply, tuple[int, ...]]:
        """Serve one request, and let the invariants see what it changes."""
        before = self.guest.running
        reply = self.commands.serve(controller, request)
        if self.commands.ended:
            self.host.watch.freed(self)
            self.end("destroyed")
        elif self.guest.running and not before:
            self.host.watch.runs(self)
        elif before and not self.guest.running:
            self.host.watch.stands(self, "paused")
        return reply

    def end(self, why: str) -> None:
        """Let the process end."""
        if self.alive:
            self.alive = False
            self.host.watch.stands(self, why)


@dataclass
class Place:
    """One machine's place on a host; implements vm_migration.machine.hypervisor.MachinePlace."""

    host: "HostMachines"
    machine: UUID

    @property
    def path(self) -> Path:
        return Path("/run/machines") / str(self.machine)

    def specification(self) -> bytes:
        found = self.host.folders.get(self.machine)
        if found is None:
            raise MachineGone(f"Machine {self.machine} has no folder here")
        return found.specification

    def instance(self) -> Instance | None:
        found = self.host.folders.get(self.machine)
        return None if found is None or found.process is None else found.process.instance

    def alive(self) -> bool:
        found = self.host.folders.get(self.machine)
        return found is not None and found.process is not None and found.process.alive

    def process(self) -> MachineProcess | None:
        """Return the process that listens there."""
        found = self.host.folders.get(self.machine)
        return None if found is None else found.process


@dataclass
class Folder:
    """What a run directory holds of one machine."""

    specification: bytes
    process: MachineProcess | None = None
    filler: Process | None = None
    """Who brings the machine up in it; a claim that ends with its process."""

    @property
    def claimed(self) -> bool:
        return self.filler is not None and self.filler.alive


@dataclass
class HostMachines:
    """The run directory of one host, and the processes that its machines are."""

    name: str
    loop: VirtualLoop
    watch: Watch
    lineages: dict[str, Lineage]
    witness: bool
    boot: int = 1
    folders: dict[UUID, Folder] = field(default_factory=dict)
    processes: dict[str, MachineProcess] = field(default_factory=dict)
    pids: int = 100

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boot}-of-{self.name}"

    def bring_up(self, machine: UUID, specification: MachineSpecification, *, incoming: bool) -> MachineProcess:
        """Start a machine process."""
        self.pids += 2
        instance = Instance(
            self.boot_id, ProcessId(self.pids, self.pids), ProcessId(self.pids + 1, self.pids), f"token-{self.pids}"
        )
        lineage = self.lineages.setdefault(str(machine), Lineage(str(machine)))
        guest = Guest(specification, lineage, booted=not incoming)
        process = MachineProcess(self, machine, guest, instance, incoming=incoming)
        self.processes[instance.name] = process
        self.watch.launched(process)
        if not incoming:
            guest.start()
            self.watch.runs(process)
        return process

    def lose_power(self) -> None:
        """End every process; the run directory lies in memory, and goes too."""
        for process in self.processes.values():
            process.end("power lost")
        self.folders.clear()
        self.boot += 1


class SimulatedHypervisor:
    """Implements vm_migration.machine.hypervisor.Hypervisor, in the hands of one agent."""

    def __init__(self, machines: HostMachines, owner: Process) -> None:
        self._machines: Final = machines
        self._owner: Final = owner

    @property
    def boot_id(self) -> str:
        return self._machines.boot_id

    def of(self, machine: UUID) -> Place:
        return Place(self._machines, machine)

    def of_text(self, machine: str) -> Place:
        return self.of(UUID(machine))

    def all(self) -> Iterator[Place]:
        for machine in sorted(self._machines.folders):
            yield self.of(machine)

    def connect(self, place: MachinePlace) -> MachinePort:
        return SimulatedPort(self.of(place.machine))

    def instance_lives(self, name: str) -> bool | None:
        if not name:
            return None
        process = self._machines.processes.get(name)
        return process is not None and process.alive

    def settled(self, specification: MachineSpecification) -> MachineSpecification:
        return specification

    def unmet(self, specification: MachineSpecification) -> tuple[control.Observation, ...]:
        return ()

    async def launch(self, machine: UUID, specification: MachineSpecification, *, incoming: bool) -> Place:
        folders = self._machines.folders
        found = folders.get(machine)
        if found is not None and (found.process is not None or found.claimed):
            raise LaunchFailed(f"Machine {machine} has a folder in the run directory already")
        folder = folders[machine] = Folder(specification.to_json(), filler=self._owner)
        try:
            await asyncio.sleep(self._machines.loop.random.uniform(0.02, 0.2))
            folder.process = self._machines.bring_up(machine, specification, incoming=incoming)
        except BaseException:
            folders.pop(machine, None)
            raise
        folder.filler = None
        return self.of(machine)

    async def take_away(self, place: MachinePlace, machine: MachinePort | None, *, only: str = "") -> None:
        if machine is not None:
            try:
                await machine.destroy()
            except CutOff:
                raise
            except MachineError as error:
                del error  # it is ended by its id below, as vm_migration.machine.launch does
        folder = self._machines.folders.get(place.machine)
        if folder is None:
            return
        if folder.claimed:
            raise MachineRefused(f"Somebody else is filling the folder of machine {place.machine}")
        process = folder.process
        if process is not None and only and process.instance.name != only:
            return
        await asyncio.sleep(0.001)
        if process is not None and process.alive:
            self._machines.watch.freed(process)
            process.end("killed")
        if self._machines.folders.get(place.machine) is folder:
            del self._machines.folders[place.machine]


class SimulatedPort(SoftwareMachine):
    """The real port, whose socket is the loop: requests go one at a time, and arrive although nobody waits any more."""

    def __init__(self, place: Place) -> None:  # the real one opens a thread
        self._place: Final = place
        self._loop: Final = place.host.loop
        self._peer: MachineProcess | None = None
        self._controller = Controller()
        self._attached = None
        self._pages = 0
        self._path = place.path  # type: ignore[misc]  # the real constructor is not called
        self._busy_until = 0.0
        self._shut = False

    async def close(self) -> None:
        self._shut = True
        self._peer = None

    async def _exchange(self, request: AnyRequest, deadline: float) -> tuple[AnyReply, list[int]]:
        if self._shut:
            raise MachineGone(f"The connection to the machine at {self._path} was closed")
        answer: asyncio.Future[tuple[AnyReply, list[int]]] = self._loop.create_future()
        when = max(self._loop.time(), self._busy_until) + self._loop.random.uniform(0.00005, 0.001)
        self._busy_until = when
        self._loop.call_at(when, self._served, answer, request, deadline, context=_WORLD)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(_close_unclaimed)
            raise

    def _served(
        self, answer: "asyncio.Future[tuple[AnyReply, list[int]]]", request: AnyRequest, deadline: float
    ) -> None:
        silent = self._place.process()
        if silent is not None and silent.alive and silent.silent_until > self._loop.time():
            if not answer.done():
                wait = min(deadline, silent.silent_until - self._loop.time())
                self._loop.call_later(wait, self._gave_up, answer, context=_WORLD)
                self._loop.call_at(silent.silent_until, self._serve_now, None, request, context=_WORLD)
            return
        self._serve_now(answer, request)

    def _gave_up(self, answer: "asyncio.Future[tuple[AnyReply, list[int]]]") -> None:
        self._peer = None
        if not answer.done():
            answer.set_exception(MachineGone(f"Machine at {self._path} does not answer: timed out"))

    def _serve_now(self, answer: "asyncio.Future[tuple[AnyReply, list[int]]] | None", request: AnyRequest) -> None:
        try:
            reply, given = self._now(request)
        except MachineGone as error:
            if answer is not None:
                answer.set_exception(error)
                answer.exception()
            return
        if answer is not None:
            answer.set_result((reply, [os.dup(each) for each in given]))

    def _now(self, request: AnyRequest) -> tuple[AnyReply, tuple[int, ...]]:
        if self._peer is None or not self._peer.alive:
            broken, self._peer = self._peer is not None, None
            found = self._place.process()
            if broken or found is None or not found.alive:
                raise MachineGone(f"Machine at {self._path} does not answer")
            self._peer, self._controller = found, Controller()
            if self._attached is not None and not isinstance(request, control.Attach):
                found.serve(self._controller, self._attached)
        return self._peer.serve(self._controller, request)


def _close_unclaimed(asked: "asyncio.Future[tuple[AnyReply, list[int]]]") -> None:
    """Close the descriptors of an answer for which nobody waits any more."""
    if not asked.cancelled() and asked.exception() is None:
        close_all(asked.result()[1])
