"""Which process a machine's place names, and which one has to go: what its journal says of an update.

A life of the agent may end between the record that makes a machine the new process's and the rename by which
everybody finds that one. Until then whoever commands the machine by its place would command the old one.
"""

from source_agent.updating.waking import waiting, wake_where_it_waits
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import Process
from vm_migration.handover.states import State
from vm_migration.handover.succession import UpdateTerms, update_of, went_over
from vm_migration.machine.hypervisor import Hypervisor
from vm_migration.machine.succession import Succession


def is_superseded(custody: Custody) -> bool:
    """Tell whether a machine's place names the process that its update has taken it from."""
    instance = custody.place.instance()
    return instance is not None and instance.name != custody.record.instance and went_over(custody.record)


async def follow_journal(custody: Custody, hypervisor: Hypervisor, succession: Succession) -> None:
    """End the process that the machine was taken from, and put the other in its place; nobody may command either.

    A machine that waits in files, and whose processes ended before it ran, is started anew.

    Raises:
        MachineError, MigrationError: It could not be.
    """
    await wake_where_it_waits(custody, hypervisor, succession)
    instance = custody.place.instance()
    if instance is not None and is_superseded(custody):
        await succession.end(instance.name)
        succession.put_in_place(custody.place, custody.record.instance)


async def end_silent(custody: Custody, hypervisor: Hypervisor, succession: Succession) -> bool:
    """End a machine's process that does not answer where another has all of the machine; tell whether there was one.

    Between hosts a silent process is waited for, since nobody can see it. Here it can be ended, and while it is frozen
    neither would run. The journal is kept to itself meanwhile: an agent that was frozen too, and comes back when
    somebody else has gone on, ends nobody's machine.

    Raises:
        Stale: Another controller has opened the journal; nothing was ended.
    """
    async with custody.mine() as record:
        update = update_of(record)
        if record.state not in (State.STOPPED, State.RELEASED) or update is None:
            return False
        if not await _is_whole_elsewhere(custody, update, hypervisor, succession):
            return False
        await succession.end(record.instance)
        return True


async def _is_whole_elsewhere(
    custody: Custody, update: UpdateTerms, hypervisor: Hypervisor, succession: Succession
) -> bool:
    if update.waits:
        return await waiting(custody, succession) is Process.ALIVE
    return update.successor != custody.record.instance and bool(hypervisor.instance_lives(update.successor))
