"""The ports through which an agent has a machine go on in another process of its host.

::

    start --offer_update--> prepared --hand_over--> ready ----> kept ----> (told to run) ----> in place

A process that was started ends with whoever started it until it is kept. It runs nothing before it is told to.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from vm_migration.errors import Refused
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.port import LaunchFailed, MachinePort, Stop
from vmm.process.control import Observation
from vmm.update.blockers import Mode


@dataclass(frozen=True, slots=True)
class Replacement:
    """A stop of the guest in which its program was replaced; `executed_ns` is on the host's clock, as its stop is."""

    stop: Stop
    executed_ns: int


def not_updatable(machine: str) -> Refused:
    """Return the refusal of a machine whose process hands nothing over."""
    text = f"The process of machine {machine} is of a kind or version that hands no machine over"
    return Refused("process-not-updatable", text, "Migrate it to a host of this version")


@runtime_checkable
class Updatable(Protocol):
    """The port to a machine whose kind hands machines to other processes; errors are MachinePort's."""

    async def judge_update(self, mode: Mode) -> tuple[Observation, ...]:
        """Return what speaks against an update in a mode; nothing changes."""

    async def offer_update(self, path: Path) -> None:
        """Tell the process that waits at a path what there is of the machine; the guest runs on."""

    async def hand_over(self, patience: float) -> Stop:
        """Stop vCPUs, and let the other process have the machine, which may take so many seconds; devices go on.

        Raises:
            MachineRefused: It was not taken over, and goes on as before.
        """

    async def replace_image(self, command: tuple[str, ...]) -> Replacement:
        """Stop vCPUs, and have its process become another program, which goes on with the machine; devices go on.

        Raises:
            MachineRefused: It runs the program that it had, as before.
        """


class Successor(Protocol):
    """A process that is to have a machine, in the hands of whoever started it."""

    @property
    def path(self) -> Path:
        """Where it waits for the process that has the machine."""

    async def prepared(self) -> None:
        """Wait until it has assembled itself on what there is.

        Raises:
            LaunchFailed: It ended instead, or took too long.
        """

    async def ready(self) -> str:
        """Wait until it has everything, and can be commanded; return its `Instance.name`.

        Raises:
            LaunchFailed: It ended instead, or took too long.
        """

    def keep(self) -> None:
        """Have it outlive this process from here on."""

    def close(self) -> None:
        """Let go of it; one that was not kept ends."""

    async def end(self) -> None:
        """End it now, kept or not, and wait until it is gone."""


class Succession(Protocol):
    """Starts, finds and ends the processes of a host's machines beside the ones that have them."""

    def program(self) -> tuple[str, ...]:
        """Return the command of the installed version's machine process, before what any one is told."""

    async def start(self, place: MachinePlace) -> Successor:
        """Start a process of the installed version beside a machine's own, and wait until it waits.

        Raises:
            LaunchFailed: Nothing of it is left.
        """

    def connect(self, place: MachinePlace) -> MachinePort:
        """Return the port to the process that is to have a machine, and is not in its place yet."""

    def put_in_place(self, place: MachinePlace, name: str) -> None:
        """Have everybody find the process of that name where a machine is looked for; idempotent.

        Raises:
            MachineGone: The machine has no place any more.
        """

    async def end(self, name: str, *, patience: float = 0.0) -> None:
        """End a process of that name where one lives, and wait until it is gone; idempotent.

        One that was asked to end has so many seconds for it; without, it is killed at once.
        """


class NoSuccession:
    """Implements `Succession` for a host whose machines stay in their processes."""

    def program(self) -> tuple[str, ...]:
        """There is none."""
        return ()

    async def start(self, place: MachinePlace) -> Successor:
        """Refuse."""
        raise LaunchFailed(f"This host has no other process for machine {place.machine}")

    def connect(self, place: MachinePlace) -> MachinePort:
        """Refuse."""
        raise LaunchFailed(f"This host has no other process for machine {place.machine}")

    def put_in_place(self, place: MachinePlace, name: str) -> None:
        """Change nothing."""

    async def end(self, name: str, *, patience: float = 0.0) -> None:
        """End nothing."""
