"""Which process a machine's place names: after an update, the one that its journal names.

A life of the agent may end between the record that makes a machine the new process's and the rename by which
everybody finds that one. Until then whoever commands the machine by its place would command the old one.
"""

from vm_migration.handover.custody import Custody
from vm_migration.handover.succession import went_over
from vm_migration.machine.succession import Succession


def is_superseded(custody: Custody) -> bool:
    """Tell whether a machine's place names the process that its update has taken it from."""
    instance = custody.place.instance()
    return instance is not None and instance.name != custody.record.instance and went_over(custody.record)


async def follow_journal(custody: Custody, succession: Succession) -> None:
    """End the process that the machine was taken from, and put the other in its place; nobody may command either."""
    instance = custody.place.instance()
    if instance is not None and is_superseded(custody):
        await succession.end(instance.name)
        succession.put_in_place(custody.place, custody.record.instance)
