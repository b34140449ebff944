"""Machine processes in a run directory: `viaduct-vmm` and `viaduct-vfio-host`, or QEMU and what stands beside it."""

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.launch import launch, take_away
from vm_migration.machine.port import MachinePort
from vm_migration.machine.qemu.program_facts import settled, unmet_by_program
from vm_migration.machine.qemu.reviving import revived
from vm_migration.machine.run_directory import MachineDirectory, RunDirectory, instance_lives
from vm_migration.machine.software import SoftwareMachine
from vm_migration.machine.starting import OwnSession, OwnUnit, Starter
from vmm.assembly.specification import MachineSpecification
from vmm.process.control import Observation
from vmm.process.identity import boot_id


class SoftwareHypervisor:
    """Implements `vm_migration.machine.hypervisor.Hypervisor`."""

    def __init__(self, run_dir: Path, units: Path | None = None, *, qemu: Collection[str] = ()) -> None:
        """`units`: the service manager's socket, of which every connection becomes a process in a unit of its own.

        `qemu`: the paths of programs that may run as QEMU machines.
        """
        self._run: Final = RunDirectory(run_dir)
        self._qemu: Final = tuple(qemu)
        self._starter: Final[Starter] = OwnSession() if units is None else OwnUnit(units)

    @property
    def boot_id(self) -> str:
        """The kernel's."""
        return boot_id()

    def of(self, machine: UUID) -> MachineDirectory:
        """Return a machine's folder, whether or not it exists."""
        return self._run.of(machine)

    def of_text(self, machine: str) -> MachineDirectory:
        """Return the folder of a machine whose UUID a record or a checked request names."""
        return self._run.of_text(machine)

    def all(self) -> Iterator[MachineDirectory]:
        """Yield every machine's folder."""
        return self._run.all()

    def connect(self, place: MachinePlace) -> MachinePort:
        """Return the port over the control socket in a machine's folder."""
        return SoftwareMachine(place.path, revive=partial(revived, self._run.of(place.machine), self._starter))

    def instance_lives(self, name: str) -> bool | None:
        """Look at the process by its pid and start time."""
        return instance_lives(name)

    def settled(self, specification: MachineSpecification) -> MachineSpecification:
        """Give a QEMU's machine type the name that means the same in every version."""
        qemu = specification.qemu
        return specification if qemu is None else specification.model_copy(update={"qemu": settled(qemu, self._qemu)})

    def unmet(self, specification: MachineSpecification) -> tuple[Observation, ...]:
        """Ask QEMU what it can be."""
        return () if specification.qemu is None else unmet_by_program(specification.qemu, self._qemu)

    async def launch(self, machine: UUID, specification: MachineSpecification, *, incoming: bool) -> MachineDirectory:
        """Start both processes."""
        return await launch(
            self._run, machine, specification, incoming=incoming, starter=self._starter, qemu=self._qemu
        )

    async def take_away(self, place: MachinePlace, machine: MachinePort | None, *, only: str = "") -> None:
        """End both processes, and remove the folder."""
        await take_away(self._run.of(place.machine), machine, only=only)
