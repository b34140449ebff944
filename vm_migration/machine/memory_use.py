"""What the machines of a host have of its memory."""

from collections.abc import Container

from vm_migration.machine.port import MachineGone
from vm_migration.machine.run_directory import RunDirectory
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.specification import parse_specification


def memory_in_use(run: RunDirectory, *, but: Container[str] = ()) -> int:
    """Return the RAM of all machines of a run directory but some, arriving ones included, in bytes."""
    total = 0
    for directory in run.all():
        if str(directory.machine) in but:
            continue
        try:
            total += parse_specification(directory.specification()).memory.size
        except (MachineGone, InvalidDocument):
            continue
    return total
