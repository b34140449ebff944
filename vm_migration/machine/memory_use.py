"""What the machines of a host have of its memory."""

from collections.abc import Container, Mapping

from vm_migration.machine.errors import MachineGone
from vm_migration.machine.hypervisor import Hypervisor
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.specification import parse_specification


def memory_in_use(hypervisor: Hypervisor, *, but: Container[str] = ()) -> int:
    """Return the RAM of all machines of a host but some, arriving ones included, in bytes."""
    total = 0
    for place in hypervisor.all():
        if str(place.machine) in but:
            continue
        try:
            total += parse_specification(place.specification()).memory.size
        except (MachineGone, InvalidDocument):
            continue
    return total


def memory_left(hypervisor: Hypervisor, budget: int, reserved: Mapping[str, int]) -> int:
    """Return what a budget leaves, in bytes; below 0 where it was made smaller.

    What is reserved for a machine, by its UUID, counts once, whether or not its process is there already.
    """
    return budget - sum(reserved.values()) - memory_in_use(hypervisor, but=reserved)
