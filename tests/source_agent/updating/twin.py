"""A host in memory on which one machine is updated: two processes that share its RAM, and an agent that may end.

Every step that the agent takes outside itself is counted: each request to a process, each record of the journal, each
rename. A life of the agent can be ended before or after any of them, and so can either process.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast
from uuid import UUID

from tests.fakes.fake_machine import MACHINE
from tests.source_agent.updating.life import Life
from vm_migration.handover.memory_disk import MemoryDisk
from vm_migration.machine.errors import CutOff, MachineGone, MachineRefused
from vm_migration.machine.hypervisor import Hypervisor, MachinePlace
from vm_migration.machine.port import MachinePort, Stop
from vm_migration.machine.run_directory import Instance, ProcessId
from vm_migration.machine.succession import Replacement
from vmm.guest.console import GuestAction
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
    asleep: bool = False
    """Its guest is suspended."""
    typed: list[GuestAction] = field(default_factory=list)
    """What its guest was told at its console, and has not done yet."""
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
            self.running, self.incoming, self.has, self.asleep = True, False, True, False
            self.host.waits = None
        self.host.progress += 1
        self.knows = self.host.progress
        return self.host.progress


@dataclass(frozen=True)
class TwinFiles:
    """A machine that waits in files: where it stood."""

    pause: int
    knows: int
    fence: Fence


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
    refuses_state: str = ""
    """Why a process that rehearses could not go on from where the machine stands."""
    refuses: str = ""
    """Why the new process does not take over."""
    waits: TwinFiles | None = None
    """The machine, as it waits in files."""
    refuses_to_wake: bool = False
    """What would go on with it does not come up."""
    console_refuses: str = ""
    """Why nothing can be typed at the guest's console."""
    drivers_hang: bool = False
    """The guest does nothing of what it is told there."""
    unreadable: bool = False
    """What waits is of a format that the agent does not read."""
    unmounted: bool = False
    """The file system that the machine waits on is not there."""
    believed: int = 0
    """How many operators say at this moment that it never will be."""
    open_ports: "set[TwinPort]" = field(default_factory=set)
    """Whom nobody has closed."""
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

    def restart(self) -> None:
        """End every process, and take away what lies in memory only; the machine's memory outlives it."""
        for process in self.processes.values():
            process.end()
        self.disk.end_processes()
        self.removed = True

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
        host.open_ports.add(self)

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

    async def rehearse_update(self, patience: float) -> None:
        del patience
        async with self._life.asked("rehearse"):
            offered = self._peer().offered
            if offered is None or not offered.alive or self._host.refuses_state:
                raise MachineRefused(self._host.refuses_state or "The process that rehearses does not answer")

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

    async def leave_suspended(self, path: Path) -> Stop:
        async with self._life.asked("leave"):
            process = self._peer()
            if self._host.refuses:
                raise MachineRefused(f"{path}: {self._host.refuses}")
            was_running, process.running, process.has = process.running, False, False
            process.pause += 1
            self._host.waits = TwinFiles(process.pause, process.knows, process.fence)
            return Stop(process.pause, was_running, 1)

    async def run(self, epoch: int) -> int:
        async with self._life.asked("run"):
            return self._peer().run(epoch)

    async def guest_command(self, action: GuestAction) -> None:
        async with self._life.asked("guest command"):
            process = self._peer()
            if self._host.console_refuses:
                raise MachineRefused(self._host.console_refuses)
            if self._host.drivers_hang:
                process.typed.append(action)
            else:
                process.asleep = action is GuestAction.SUSPEND

    async def stay_paused(self, epoch: int) -> None:
        async with self._life.asked("stay paused"):
            process = self._peer()
            process.fence.require_run(epoch)
            process.incoming, process.has = False, True
            self._host.waits = None

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
        self._host.open_ports.discard(self)

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
            guest=GuestFigures(
                errors=0, jobs_done=0, dirty_bytes_per_s=0.0, dma_bytes_per_s=0.0, busy_actions=len(process.typed)
            ),
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


def as_hypervisor(host: TwinHost, life: Life) -> Hypervisor:
    """Return the hypervisor as an agent takes it."""
    return cast("Hypervisor", TwinHypervisor(host, life))
