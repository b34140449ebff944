"""The way of an update up to its release in mode reboot: a machine whose guest is suspended is left in files.

::

    OUTGOING  leave        the guest sleeps; where all but RAM stands is in a file beside RAM's
    STOPPED   file named   whoever comes next may begin from both, once the process that has the machine is gone

The process keeps it until then: told to run, it takes the file away, and the guest wakes there.
"""

from typing import Final

import msgspec

from source_agent.account import Account
from source_agent.progress import Phase
from source_agent.terms import encode
from source_agent.updating.course import TakenOver, in_time
from vm_migration.errors import AttemptFailed
from vm_migration.handover.departure import pause_bound_ms, stopped
from vm_migration.handover.record import Record
from vm_migration.handover.succession import UpdateTerms
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.errors import MachineRefused
from vm_migration.machine.port import Stop
from vm_migration.machine.succession import Succession, Updatable, not_updatable
from vm_migration.machine.waiting_in_files import WaitingPlace

_HINT: Final = "The guest wakes in the process that it had; see vmm.log in its folder of the run directory"


class Leaving:
    """One update's, for as long as it can be given up."""

    following: Final = None
    """There is no other process yet."""

    def __init__(self, account: Account, succession: Succession) -> None:
        self._account: Final = account
        self._succession: Final = succession

    async def run(self) -> TakenOver:
        """Go the whole way.

        Raises:
            AttemptFailed: The machine could not be left.
            MachineError, MigrationError: Its process or the journal failed otherwise.
        """
        return await in_time(self._account.terms, self._left())

    async def _left(self) -> TakenOver:
        account = self._account
        account.enter(Phase.SWITCHING, "leaves the machine in files; its guest is suspended")
        port, place = account.custody.port, account.custody.place
        where = await self._succession.waiting_place(account.record.specification)
        if not isinstance(port, Updatable):
            raise not_updatable(account.record.machine)
        if where is None:
            raise AttemptFailed("memory-not-in-a-file", "Its RAM is in no file that outlives the process", _HINT)
        try:
            stop = await port.leave_suspended(where.path)
        except MachineRefused as error:
            raise AttemptFailed("not-left", str(error), _HINT) from error
        left_ns = loop_ns()
        if not await self._succession.waits(place, account.record.specification, where, stop.pause):
            raise AttemptFailed("not-left", f"What waits at {where.path} cannot be begun from", _HINT)
        process = await account.custody.answer()
        await account.custody.write(lambda last: _stopped(account, last, stop, where))
        account.terms = msgspec.structs.replace(account.terms, update=_update(account.record, where))
        return TakenOver(stop, process, left_ns, loop_ns())

    def keep(self) -> None:
        """Files outlive everybody."""

    async def end(self) -> None:
        """Nothing was started: the process that has the machine takes the file away when it runs."""

    async def let_go(self) -> None:
        """Nothing is held."""


def _stopped(account: Account, last: Record, stop: Stop, where: WaitingPlace) -> Record:
    terms = msgspec.structs.replace(account.terms, update=_update(last, where))
    following = stopped(last, pause=stop.pause, bound_ms=pause_bound_ms(terms.downtime_limit_ms))
    return msgspec.structs.replace(following, policy=encode(terms))


def _update(record: Record, where: WaitingPlace) -> UpdateTerms:
    return UpdateTerms(mode="reboot", predecessor=record.instance, waits=str(where.path), home=where.home)
