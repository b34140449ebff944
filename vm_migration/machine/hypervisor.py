"""The port through which agents start, find, command and end the machine processes of their host, of whatever kind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from uuid import UUID

from vm_migration.machine.port import MachinePort
from vm_migration.machine.run_directory import Instance
from vmm.assembly.specification import MachineSpecification
from vmm.process.control import Observation


class MachinePlace(Protocol):
    """One machine's place on a host, whether or not a process is there."""

    @property
    def machine(self) -> UUID:
        """Which machine."""

    @property
    def path(self) -> Path:
        """Its folder in the run directory."""

    def specification(self) -> bytes:
        """Return the specification as it was given.

        Raises:
            MachineGone: There is none.
        """

    def instance(self) -> Instance | None:
        """Return which processes the machine is, or None when it never came up."""

    def alive(self) -> bool:
        """Tell whether the machine process lives, on this boot."""


class Hypervisor(Protocol):
    """The machine processes of one host."""

    @property
    def boot_id(self) -> str:
        """Which boot of the host this is; hosts of one boot id share one monotonic clock."""

    def of(self, machine: UUID) -> MachinePlace:
        """Return a machine's place, whether or not it exists."""

    def of_text(self, machine: str) -> MachinePlace:
        """Return the place of a machine whose UUID a record or a checked request names."""

    def all(self) -> Iterator[MachinePlace]:
        """Yield every machine's place."""

    def connect(self, place: MachinePlace) -> MachinePort:
        """Return the port to a machine; nothing is asked of it before the first call."""

    def instance_lives(self, name: str) -> bool | None:
        """Tell whether the process lives whose `Instance.name` a journal holds; None when it holds none."""

    def settled(self, specification: MachineSpecification) -> MachineSpecification:
        """Return a specification in which what this host would decide is decided, so that every host makes the same."""

    def unmet(self, specification: MachineSpecification) -> tuple[Observation, ...]:
        """Return everything that keeps a machine from being made here, as far as this host's own programs say."""

    async def launch(self, machine: UUID, specification: MachineSpecification, *, incoming: bool) -> MachinePlace:
        """Start a machine's processes and wait until they are ready.

        Raises:
            LaunchFailed: Nothing of the machine is left.
        """

    async def take_away(self, place: MachinePlace, machine: MachinePort | None, *, only: str = "") -> None:
        """End a machine's processes, by request where one commands it, else by their ids, and remove its place.

        Where `only` names an instance, a place that has another one by now is left as it is.

        Raises:
            CutOff: Somebody newer commands the process; nothing was ended.
            MachineRefused: Somebody else is filling the place, or taking it away.
        """
