"""Another program takes the place of the one that a machine's process runs: nothing changes owners.

::

    OUTGOING  a process with the new program loads the state, and ends     the guest runs, but for a moment
              the machine's process becomes the new program                the guest stands still, devices work
    ABORTED   with the process named as its own successor                  it runs again

The process is the same to everybody, so that nothing is released: the attempt keeps others away, and ends where the
machine is. Whether a program failed or not, the process goes on with the machine, or is gone with it.
"""

from typing import Final

import msgspec

from source_agent.account import Account
from source_agent.progress import Phase
from source_agent.terms import encode
from vm_migration.errors import AttemptFailed
from vm_migration.handover.departure import aborted
from vm_migration.handover.record import Record
from vm_migration.handover.succession import UpdateTerms
from vm_migration.machine.errors import LaunchFailed, MachineRefused
from vm_migration.machine.succession import Replacement, Succession, Updatable, not_updatable

_REHEARSAL_SECONDS: Final = 2.0
"""For which the guest stands still at most while the state is loaded; some milliseconds are usual."""
_HINT: Final = "The machine runs the program that it had; see vmm.log in its folder of the run directory"


async def rehearse(account: Account, succession: Succession) -> None:
    """Have a process with the new program load where the machine stands: what it finds wrong changes nothing.

    Raises:
        AttemptFailed: It did not come up, or cannot have this machine.
    """
    account.enter(Phase.STARTING, "has a process of the installed version load the state; the guest runs")
    port = account.custody.port
    if not isinstance(port, Updatable):
        raise not_updatable(account.record.machine)
    try:
        successor = await succession.start(account.custody.place, rehearses=True)
        try:
            await port.offer_update(successor.path)
            await successor.prepared()
            await port.rehearse_update(_REHEARSAL_SECONDS)
        finally:
            await successor.end()
    except (LaunchFailed, MachineRefused) as error:
        raise AttemptFailed("successor-not-prepared", str(error), _HINT) from error


async def replace_program(account: Account, succession: Succession) -> Replacement:
    """Have the machine's process become the new program, and write that it did.

    Raises:
        AttemptFailed: It runs the one that it had.
        MachineError, MigrationError: The process or the journal failed otherwise.
    """
    account.enter(Phase.RESUMING, "becomes the new program; the guest stands still, its devices work")
    port = account.custody.port
    if not isinstance(port, Updatable):
        raise not_updatable(account.record.machine)
    try:
        found = await port.replace_image(succession.program())
    except MachineRefused as error:
        raise AttemptFailed("not-replaced", str(error), _HINT) from error
    await account.custody.write(lambda last: _replaced(account, last))
    return found


def _replaced(account: Account, last: Record) -> Record:
    update = UpdateTerms(mode="exec", successor=last.instance)
    terms = msgspec.structs.replace(account.terms, update=update)
    return msgspec.structs.replace(aborted(last, reason=""), policy=encode(terms))
