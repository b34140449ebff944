"""One end of a rehearsed migration: RAM, a host and a machine, all in this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from lab.rehearsal.host_in_process import HostInProcess
from lab.rehearsal.material import seeded_material, touch
from lab.rehearsal.world import World
from lab.scenario import Scenario
from vmm.assembly.host_configuration import host_configuration
from vmm.assembly.machine import Machine
from vmm.assembly.specification import MachineSpecification
from vmm.memory.ram_block import RamBlock


@dataclass(frozen=True, slots=True)
class Side:
    """A machine, the host beneath it, and the clock above both."""

    machine: Machine
    host: HostInProcess
    world: World

    @property
    def block(self) -> RamBlock:
        """The machine's RAM."""
        return self.machine.memory.block

    def start(self) -> None:
        """Run the machine.

        Raises:
            HostCallFailed: It stands still.
        """
        self.machine.start()
        self.world.wake()


@contextmanager
def assembled_side(
    scenario: Scenario, *, specification: MachineSpecification | None = None, now_ns: int = 0
) -> Iterator[Side]:
    """Assemble a machine that stands still, and take everything away at the end.

    Raises:
        HostCallFailed: The host refuses the machine's devices.
    """
    wanted = scenario.machine if specification is None else specification
    block = RamBlock.create(f"lab-{scenario.name}", wanted.memory.size)
    host = _host(scenario, wanted)
    try:
        machine = Machine(wanted, block, host)
        try:
            yield Side(machine, host, World(machine, host, now_ns))
        finally:
            for assembled in machine.devices:
                os.close(assembled.completion)
                os.close(assembled.doorbell)
    finally:
        host.close()
        block.close()


def _host(scenario: Scenario, wanted: MachineSpecification) -> HostInProcess:
    update = scenario.document.update
    configuration = msgspec.structs.replace(
        host_configuration(wanted, scenario.document.run.host_page_size),
        update_vaddr=update.host_updates_vaddr,
        change_process=update.host_changes_process,
    )
    return HostInProcess(configuration, by_file=update.map_by_file, later_limit=update.locked_memory_limit)


def boot(side: Side, seed: int) -> None:
    """Start a machine for the first time, on contents that follow from the seed, and run it."""
    material = seeded_material(seed)
    side.machine.boot(material, touch(side.block, material, seed))
    side.start()
