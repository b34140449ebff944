"""The ports through which an agent has a machine go on in another process of its host.

::

    start --offer_update--> prepared --hand_over--> ready ----> kept ----> (told to run) ----> in place

A process that was started ends with whoever started it until it is kept. It runs nothing before it is told to.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.port import LaunchFailed, MachinePort, Stop
from vmm.process.control import Observation


@runtime_checkable
class Updatable(Protocol):
    """The port to a machine whose kind hands machines to other processes; errors are MachinePort's."""

    async def judge_update(self) -> tuple[Observation, ...]:
        """Return what keeps the machine in its process; nothing changes."""

    async def offer_update(self, path: Path) -> None:
        """Tell the process that waits at a path what there is of the machine; the guest runs on."""

    async def hand_over(self, patience: float) -> Stop:
        """Stop vCPUs, and let the other process have the machine, which may take so many seconds; devices go on.

        Raises:
            MachineRefused: It was not taken over, and goes on as before.
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
