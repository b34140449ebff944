"""The ports through which an agent has a machine go on in another process of its host.

::

    start --offer_update--> prepared --hand_over--> ready ----> kept ----> (told to run) ----> in place

A process that was started ends with whoever started it until it is kept. It runs nothing before it is told to.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable
from uuid import UUID

from vm_migration.errors import Refused
from vm_migration.machine.errors import LaunchFailed
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.port import MachinePort, Stop
from vm_migration.machine.waiting_in_files import WaitingPlace
from vmm.guest.console import GuestAction
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

    async def rehearse_update(self, patience: float) -> None:
        """Have the process that it was offered load where the machine stands, which may take so many seconds; it ends.

        Raises:
            MachineRefused: That process cannot have the machine.
        """

    async def hand_over(self, patience: float) -> Stop:
        """Stop vCPUs, and let the other process have the machine, which may take so many seconds; devices go on.

        Raises:
            MachineRefused: It was not taken over, and goes on as before.
        """

    async def leave_suspended(self, path: Path) -> Stop:
        """Leave a machine whose guest is suspended in its RAM's file and one at a path, until it is told to run.

        Raises:
            MachineRefused: It is not, and goes on as before.
        """

    async def replace_image(self, command: tuple[str, ...]) -> Replacement:
        """Stop vCPUs, and have its process become another program, which goes on with the machine; devices go on.

        Raises:
            MachineRefused: It runs the program that it had, as before.
        """


@runtime_checkable
class Consoled(Protocol):
    """The port to a machine at whose guest's console something can be typed; errors are MachinePort's."""

    async def guest_command(self, action: GuestAction) -> None:
        """Have the guest do something; later steps of it carry that out.

        Raises:
            MachineRefused: It cannot.
        """


class Woken(Protocol):
    """The processes of a machine that waits in files, in the hands of whoever started them; they run nothing yet."""

    @property
    def name(self) -> str:
        """The machine process's `Instance.name`."""

    def keep(self) -> None:
        """Have everybody find them in the machine's place, and have them outlive this process from here on."""

    async def end(self) -> None:
        """End them now, and wait until they are gone; the machine waits on."""


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

    async def start(self, place: MachinePlace, *, rehearses: bool = False) -> Successor:
        """Start a process of the installed version beside a machine's own, and wait until it waits.

        One that only `rehearses` never has the machine.

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

    async def waiting_place(self, specification: str) -> WaitingPlace | None:
        """Return where a machine of a specification waits in files; None of one that never can."""

    async def waits(self, place: MachinePlace, specification: str, where: WaitingPlace, pause: int) -> bool | None:
        """Tell whether a machine waits in files since a stop; None where nobody can know, or it is not as it was.

        It comes within seconds, also of a file system that does not answer.
        """

    def believing(self, machine: UUID) -> AbstractContextManager[None]:
        """For the length of the context, take files of a machine that are not there for gone, wherever they were left.

        It is an operator's word: their file system is, and nobody can see that.
        """

    async def forget(self, place: MachinePlace, specification: str) -> None:
        """Remove the file by which a machine that is LOST would wait, where one was left; idempotent.

        One that cannot be looked at stays, and is told in the log.
        """

    async def wake(self, place: MachinePlace, specification: str, path: Path) -> Woken:
        """Start new processes for a machine that waits in files, in a place that is made where there is none.

        Raises:
            LaunchFailed: It has processes, or its new ones did not come up; it waits on.
        """


class NoSuccession:
    """Implements `Succession` for a host whose machines stay in their processes."""

    def program(self) -> tuple[str, ...]:
        """There is none."""
        return ()

    async def start(self, place: MachinePlace, *, rehearses: bool = False) -> Successor:
        """Refuse."""
        del rehearses
        raise LaunchFailed(f"This host has no other process for machine {place.machine}")

    def connect(self, place: MachinePlace) -> MachinePort:
        """Refuse."""
        raise LaunchFailed(f"This host has no other process for machine {place.machine}")

    def put_in_place(self, place: MachinePlace, name: str) -> None:
        """Change nothing."""

    async def end(self, name: str, *, patience: float = 0.0) -> None:
        """End nothing."""

    async def waiting_place(self, specification: str) -> WaitingPlace | None:
        """There is none."""

    async def waits(self, place: MachinePlace, specification: str, where: WaitingPlace, pause: int) -> bool | None:
        """None waits."""
        return False

    def believing(self, machine: UUID) -> AbstractContextManager[None]:
        """There is none."""
        del machine
        return nullcontext()

    async def forget(self, place: MachinePlace, specification: str) -> None:
        """There is none."""

    async def wake(self, place: MachinePlace, specification: str, path: Path) -> Woken:
        """Refuse."""
        raise LaunchFailed(f"This host has no other process for machine {place.machine}")
