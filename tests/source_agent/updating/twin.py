"""A host in memory on which one machine is updated: two processes that share its RAM, and an agent that may end.

Every step that the agent takes outside itself is counted: each request to a process, each record of the journal, each
rename. A life of the agent can be ended before or after any of them, and so can either process.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast
from uuid import UUID

from tests.fakes.fake_machine import MACHINE
from tests.source_agent.updating.life import Life
from vm_migration.handover.memory_disk import MemoryDisk
from vm_migration.machine.hypervisor import Hypervisor, MachinePlace
from vm_migration.machine.port import CutOff, LaunchFailed, MachineGone, MachinePort, MachineRefused, Stop
from vm_migration.machine.run_directory import Instance, ProcessId
from vm_migration.machine.succession import Replacement, Successor
from vmm.process.control import Description, GuestFigures, Observation, Tracking
from vmm.process.fence import Fence, FencedOff

BOOT: Final = "boot"
SPECIFICATION: Final = b'{"name": "guest", "memory": {"size": "64MiB"}, "viommu": {"model": "none"}}'


@dataclass
class TwinProcess:
    """A machine process, with the fence of the real one; `knows` is the guest's progress that it would go on from."""

    host: "TwinHost"
    instance: Instance
    incoming: bool = False
    has: bool = True
    """It has the machine, and has not handed it over."""
    fence: Fence = field(default_factory=Fence)
    running: bool = False
    pause: int = 0
    knows: int = 0
    alive: bool = True
    frozen: bool = False
    """It answers nobody, and still lives."""
    kept: bool = True
    offered: "TwinProcess | None" = None
    whole: bool = True
    program: tuple[str, ...] = ("old",)

    def end(self) -> None:
        """Let it end."""
        self.alive = self.running = False

    def run(self, epoch: int) -> int:
        """Run, as the real one would where it is told to."""
        try:
            self.fence.require_run(epoch)
        except FencedOff as error:
            raise CutOff(str(error)) from error
        if not self.whole:
            raise MachineRefused("It has not taken over")
        if not self.running:
            self.host.seen_to_run(self)
            self.running, self.incoming, self.has = True, False, True
        self.host.progress += 1
        self.knows = self.host.progress
        return self.host.progress


@dataclass
class TwinHost:
    """What there is on the host: processes, sockets, instance.json; `violations` says what must never be."""

    processes: dict[str, TwinProcess] = field(default_factory=dict)
    socket: str = ""
    next_socket: str = ""
    listed: str = ""
    """Whom instance.json names."""
    progress: int = 0
    violations: list[str] = field(default_factory=list)
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    pids: int = 100
    removed: bool = False
    refuses: str = ""
    """Why the new process does not take over."""
    silent: bool = False
    """The new process never says that it has taken over."""

    def started(self, *, incoming: bool) -> TwinProcess:
        """Start a process."""
        self.pids += 1
        identity = ProcessId(self.pids, self.pids)
        process = TwinProcess(self, Instance(BOOT, identity, ProcessId(1, 1), f"drawn{self.pids}"), incoming)
        process.has = process.whole = process.kept = not incoming
        self.processes[process.instance.name] = process
        return process

    def seen_to_run(self, process: TwinProcess) -> None:
        """Note what must never be: two that run, or one that would miss what the guest did."""
        for other in self.processes.values():
            if other is not process and other.running:
                self.violations.append(f"{process.instance.name} runs beside {other.instance.name}")
        if process.knows != self.progress:
            self.violations.append(f"{process.instance.name} goes on from {process.knows}, not {self.progress}")

    def agent_gone(self) -> None:
        """End what ends with an agent's process, and close its files."""
        for process in self.processes.values():
            if not process.kept:
                process.end()
        self.disk.end_processes()

    @property
    def old(self) -> TwinProcess:
        """The process that the machine was created in."""
        return next(iter(self.processes.values()))

    @property
    def new(self) -> TwinProcess | None:
        """The process that an update started last."""
        return None if len(self.processes) == 1 else list(self.processes.values())[-1]


@dataclass
class TwinPlace:
    """Implements `MachinePlace`."""

    host: TwinHost
    machine: UUID = field(default_factory=lambda: UUID(MACHINE))
    path: Path = Path("/run/machines") / MACHINE

    def specification(self) -> bytes:
        if self.host.removed:
            raise MachineGone("No folder")
        return SPECIFICATION

    def instance(self) -> Instance | None:
        found = None if self.host.removed else self.host.processes.get(self.host.listed)
        return None if found is None else found.instance

    def alive(self) -> bool:
        found = self.host.processes.get(self.host.listed)
        return not self.host.removed and found is not None and found.alive


class TwinPort:
    """The part of a port that an update and an ending ask; `Updatable` too."""

    def __init__(self, host: TwinHost, life: Life, *, following: bool = False) -> None:
        self._host, self._life, self._following = host, life, following
        self._process: TwinProcess | None = None
        self._attached: tuple[int, int] | None = None

    def _peer(self, *, commands: bool = True) -> TwinProcess:
        if self._process is None:
            name = self._host.next_socket if self._following else self._host.socket
            self._process = self._host.processes.get(name)
        if self._process is None or not self._process.alive or self._process.frozen:
            raise MachineGone("Nobody answers")
        if commands and (self._attached is None or not self._process.fence.admits(*self._attached)):
            raise CutOff("A newer controller commands it")
        return self._process

    async def describe(self) -> Description:
        async with self._life.asked("describe"):
            return self._described(self._peer(commands=False))

    async def attach(self, epoch: int, controller: int) -> Description:
        async with self._life.asked("attach"):
            process = self._peer(commands=False)
            try:
                process.fence = process.fence.attach(epoch, controller)
            except FencedOff as error:
                raise CutOff(str(error)) from error
            self._attached = epoch, controller
            return self._described(process)

    async def judge_update(self, mode: str) -> tuple[Observation, ...]:
        del mode
        self._peer()
        return ()

    async def replace_image(self, command: tuple[str, ...]) -> Replacement:
        async with self._life.asked("replace"):
            process = self._peer()
            if self._host.refuses:
                raise MachineRefused(self._host.refuses)
            process.pause += 1
            process.program = command
            executed = process.run(process.fence.released + 1) if process.running else 0
            return Replacement(Stop(process.pause, process.running, 1), executed)

    async def offer_update(self, path: Path) -> None:
        async with self._life.asked("offer"):
            process, new = self._peer(), self._host.new
            if new is None or not new.alive:
                raise MachineRefused(f"Nobody waits at {path}")
            process.offered = new

    async def hand_over(self, patience: float) -> Stop:
        del patience
        async with self._life.asked("hand over"):
            process = self._peer()
            new, was_running = process.offered, process.running
            if new is None or not new.alive or self._host.refuses:
                raise MachineRefused(self._host.refuses or "The process that takes over does not answer")
            process.running = False
            process.pause += 1
            process.has, new.whole = False, True
            new.knows, new.pause, new.fence = process.knows, process.pause, process.fence
            return Stop(process.pause, was_running, 1)

    async def run(self, epoch: int) -> int:
        async with self._life.asked("run"):
            return self._peer().run(epoch)

    async def stay_paused(self, epoch: int) -> None:
        async with self._life.asked("stay paused"):
            process = self._peer()
            process.fence.require_run(epoch)
            process.incoming, process.has = False, True

    async def pause(self, *, for_attempt: bool) -> Stop:
        del for_attempt
        async with self._life.asked("pause"):
            process = self._peer()
            if not process.has:
                raise MachineRefused("Another process has the machine")
            was_running, process.running = process.running, False
            process.pause += 1
            return Stop(process.pause, was_running, 1)

    async def stop_tracking(self) -> None:
        async with self._life.asked("stop tracking"):
            self._peer()

    async def release(self, epoch: int) -> None:
        async with self._life.asked("release"):
            process = self._peer()
            process.fence = process.fence.release(epoch)

    async def destroy(self) -> None:
        async with self._life.asked("destroy"):
            self._peer().end()

    async def close(self) -> None:
        self._process = self._attached = None

    def _described(self, process: TwinProcess) -> Description:
        return Description(
            machine=MACHINE,
            name="guest",
            run_state="incoming" if process.incoming else "running" if process.running else "paused",
            pause=process.pause,
            epoch=process.fence.epoch,
            controller=process.fence.controller,
            released=process.fence.released,
            ram_bytes=64 << 20,
            populated_bytes=0,
            witness=False,
            boot_id=BOOT,
            pid=process.instance.vmm.pid,
            instance=process.instance.token,
            specification=SPECIFICATION.decode(),
            guest=GuestFigures(errors=0, jobs_done=0, dirty_bytes_per_s=0.0, dma_bytes_per_s=0.0),
            memory_kind="mixture",
            memory_files=(),
            memory_sha256="",
            blockers=(),
            warnings=(),
            tracking=Tracking(exact=True, mapped_bytes=0),
            device_state_bytes=0,
            handed_over=not process.has and not process.incoming,
            hands_over=True,
        )


class TwinHypervisor:
    """The part of `Hypervisor` that one machine needs, in the hands of one life of the agent."""

    boot_id = BOOT

    def __init__(self, host: TwinHost, life: Life) -> None:
        self._host, self._life = host, life

    def of(self, machine: UUID) -> MachinePlace:
        del machine
        return TwinPlace(self._host)

    def of_text(self, machine: str) -> MachinePlace:
        return self.of(UUID(machine))

    def all(self) -> Iterator[MachinePlace]:
        if not self._host.removed:
            yield TwinPlace(self._host)

    def connect(self, place: MachinePlace) -> MachinePort:
        del place
        return cast("MachinePort", TwinPort(self._host, self._life))

    def instance_lives(self, name: str) -> bool | None:
        if not name:
            return None
        found = self._host.processes.get(name)
        return found is not None and found.alive

    async def take_away(self, place: MachinePlace, machine: MachinePort | None, *, only: str = "") -> None:
        del place, machine
        with self._life.step("take away"):
            if only in ("", self._host.listed):
                self._host.processes[self._host.listed].end()
                self._host.removed = True


class TwinSuccessor:
    """Implements `Successor`."""

    path = Path("/run/update.sock")

    def __init__(self, host: TwinHost, life: Life, process: TwinProcess) -> None:
        self._host, self._life, self._process = host, life, process

    async def prepared(self) -> None:
        async with self._life.asked("prepared"):
            self._require()

    async def ready(self) -> str:
        async with self._life.asked("ready"):
            self._require()
            if self._host.silent:
                await asyncio.Event().wait()
            self._host.next_socket = self._process.instance.name
            return self._process.instance.name

    def keep(self) -> None:
        with self._life.step("keep"):
            self._process.kept = True

    def close(self) -> None:
        if not self._process.kept and not self._life.over:
            self._process.end()

    async def end(self) -> None:
        async with self._life.asked("end successor"):
            self._process.end()

    def _require(self) -> None:
        if not self._process.alive:
            raise LaunchFailed("It ended")


class TwinSuccession:
    """Implements `Succession`."""

    def __init__(self, host: TwinHost, life: Life) -> None:
        self._host, self._life = host, life

    def program(self) -> tuple[str, ...]:
        return ("new",)

    async def start(self, place: MachinePlace) -> Successor:
        del place
        async with self._life.asked("start"):
            return TwinSuccessor(self._host, self._life, self._host.started(incoming=True))

    def connect(self, place: MachinePlace) -> MachinePort:
        del place
        return cast("MachinePort", TwinPort(self._host, self._life, following=True))

    def put_in_place(self, place: MachinePlace, name: str) -> None:
        del place
        if self._host.listed == name:
            return
        with self._life.step("rename"):
            if self._host.next_socket:
                self._host.socket, self._host.next_socket = self._host.next_socket, ""
        with self._life.step("write instance"):
            self._host.listed = name

    async def end(self, name: str, *, patience: float = 0.0) -> None:
        del patience
        found = self._host.processes.get(name)
        if found is not None and found.alive:
            async with self._life.asked("end"):
                found.end()


def as_hypervisor(host: TwinHost, life: Life) -> Hypervisor:
    """Return the hypervisor as an agent takes it."""
    return cast("Hypervisor", TwinHypervisor(host, life))
