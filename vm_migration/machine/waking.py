"""New processes of a machine that waits in files, on the same host: the host's and the hypervisor's.

::

    folder claimed -> those before have ended -> both started -> "ready" -> (journalled) -> instance.json -> "keep"

The folder is made again where a restart of the host took it. Up to "keep" both end with whoever started them, and the
files wait on: nothing runs, and nothing of them is touched, before the machine is told to run.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Final
from uuid import UUID

from vm_migration.machine.coming_up import ComingUp
from vm_migration.machine.errors import LaunchFailed
from vm_migration.machine.launch import (
    HOST_PATIENCE,
    end_all,
    end_process,
    ended_unless_up,
    machine_arguments,
    start_model,
)
from vm_migration.machine.run_directory import Instance, MachineDirectory, RunDirectory, lives
from vm_migration.machine.starting import Starter
from vmm.assembly.specification import MachineSpecification
from vmm.process.control import SPECIFICATION_FILE
from vmm.process.identity import boot_id


class WokenMachine:
    """Implements `vm_migration.machine.succession.Woken`."""

    def __init__(
        self, directory: MachineDirectory, instance: Instance, started: list[ComingUp], claim: ExitStack
    ) -> None:
        self._directory: Final = directory
        self._instance: Final = instance
        self._started: Final = started
        self._claim: Final = claim

    @property
    def name(self) -> str:
        """What journals call its process."""
        return self._instance.name

    def keep(self) -> None:
        """Name both in instance.json, and have them outlive this process."""
        self._directory.write_instance(self._instance)
        for each in self._started:
            each.keep()
        self._claim.close()

    async def end(self) -> None:
        """Kill both; the machine waits on."""
        await end_all(self._started)
        self._claim.close()


async def wake(
    run: RunDirectory, starter: Starter, machine: UUID, specification: MachineSpecification, path: Path
) -> WokenMachine:
    """Start both processes for the machine that waits at a path, and wait until they are ready.

    Raises:
        LaunchFailed: It has processes, somebody else starts some now, or they did not come up. It waits on.
    """
    directory = run.of(machine)
    with ExitStack() as claim:
        async with ended_unless_up(machine) as started:
            if not directory.exists():
                run.create(machine)
            if not claim.enter_context(directory.claimed()):
                raise LaunchFailed(f"Somebody else is at the folder of machine {machine}")
            await _require_ended(directory)
            (directory.path / SPECIFICATION_FILE).write_bytes(specification.to_json())
            arguments = [*machine_arguments(directory), "--suspended", str(path)]
            instance = await start_model(directory, specification, starter, started, arguments=arguments)
        return WokenMachine(directory, instance, started, claim.pop_all())


async def _require_ended(directory: MachineDirectory) -> None:
    before = directory.instance()
    if before is None or before.boot_id != boot_id():
        return
    if lives(before.vmm):
        raise LaunchFailed(f"Machine {directory.machine} has a process already")
    await end_process(before.host, kill=False, patience=HOST_PATIENCE)  # it has RAM's file open until then
