"""What a QEMU machine says of itself through the control socket."""

import os
from typing import Final

from vm_migration.machine.errors import MachineRefused
from vm_migration.machine.qemu.answers import Migration, Status
from vm_migration.machine.qemu.devices import Parts
from vm_migration.machine.qemu.judging import findings
from vm_migration.machine.qemu.run_states import trouble
from vm_migration.machine.qemu.shared_ram import open_ram
from vmm.assembly.qemu_specification import QemuSpecification
from vmm.assembly.specification import MachineSpecification
from vmm.process.control import Description, GuestFigures, Tracking
from vmm.process.fence import Fence
from vmm.process.identity import Identity


class Portrait:
    """Puts together what was asked of QEMU and what is known of its process."""

    def __init__(self, identity: Identity, specification: MachineSpecification, qemu: QemuSpecification) -> None:
        """`identity` names QEMU's own process."""
        self._identity: Final = identity
        self._specification: Final = specification
        self._shared: Final = {disk.file for disk in qemu.disk if disk.shared}

    @property
    def instance(self) -> str:
        """What was drawn for the process that speaks for this machine."""
        return self._identity.instance

    @property
    def ram_bytes(self) -> int:
        """RAM's size."""
        return self._specification.memory.size

    def open_ram(self) -> int:
        """Open RAM's file; the caller owns the descriptor.

        Raises:
            MachineRefused: This QEMU's RAM is no shared memfd.
        """
        try:
            return open_ram(self._identity.pid, self.ram_bytes)
        except LookupError as error:
            raise MachineRefused(str(error)) from error

    def describe(self, said: tuple[Status, Migration, Parts], fence: Fence, run_state: str, pause: int) -> Description:
        """Return everything that an agent may know."""
        status, migration, parts = said
        populated, ram_trouble = self._populated()
        found = findings(
            parts,
            self.ram_bytes,
            blocked=migration.blocked_reasons,
            shared_disks=self._shared,
            ram_trouble=ram_trouble,
            guest_trouble=trouble(status) or "",
        )
        return Description(
            machine=self._identity.machine,
            name=self._specification.name,
            run_state=run_state,
            pause=pause,
            epoch=fence.epoch,
            controller=fence.controller,
            released=fence.released,
            ram_bytes=self.ram_bytes,
            populated_bytes=populated,
            witness=False,
            boot_id=self._identity.boot_id,
            pid=self._identity.pid,
            instance=self._identity.instance,
            specification=self._specification.to_json().decode(),
            guest=GuestFigures(errors=0, jobs_done=0, dirty_bytes_per_s=0.0, dma_bytes_per_s=0.0),
            memory_kind="",
            memory_files=(),
            memory_sha256="",
            blockers=found.blockers,
            warnings=found.warnings,
            tracking=Tracking(exact=True, mapped_bytes=0),
            device_state_bytes=0,
            moves="stream",
        )

    def _populated(self) -> tuple[int, str]:
        """Return how much of RAM holds memory, all of it where that is unknown, and why it cannot be compared."""
        try:
            descriptor = open_ram(self._identity.pid, self.ram_bytes)
        except LookupError as error:
            return self.ram_bytes, str(error)
        try:
            return os.fstat(descriptor).st_blocks * 512, ""
        finally:
            os.close(descriptor)
