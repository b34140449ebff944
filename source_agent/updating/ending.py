"""What an update comes to: decided by the table of vm_migration.handover.recovery, as a migration's end is.

::

    before RELEASED   old process alive   ABORTED durable, then it has its machine again
                      gone                LOST, or RELEASED where the new one has everything
    RELEASED          new process alive   RECLAIMED in it, then it runs
                      gone                RECLAIMED in the old one, or LOST

Of a machine that waits in files these are the new process, for as long as they are there.

Both processes are of this host, so that one agent sees both, and nobody is waited for: an old process that is silent,
frozen say, while the new one has everything is ended, for nothing else would let either run. The process that is not
the machine's own has ended, or has confirmed that it never runs it at that epoch, before the other is told to run.
Each step is idempotent, and repeated until it succeeds: whoever comes next goes on from the journal.
"""

from contextlib import suppress
from functools import partial
from typing import Final

from source_agent.account import Account
from source_agent.ending import bring_to_owed, lose, settle, take_back
from source_agent.handing_over import fence_off
from source_agent.updating.places import end_silent, is_superseded
from source_agent.updating.waking import bring_from_files, cannot_wake, waiting, wake
from vm_migration.errors import Stale, Unreachable
from vm_migration.handover.custody import Custody
from vm_migration.handover.departure import released
from vm_migration.handover.evidence import InstanceGone, Process, SideView, view
from vm_migration.handover.record import Record
from vm_migration.handover.recovery import Action, decide
from vm_migration.handover.states import LEAVING, State
from vm_migration.handover.succession import (
    other_process,
    succeeded,
    successor_view,
    update_of,
    waits_in_files,
    went_over,
)
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.errors import CutOff, MachineError
from vm_migration.machine.hypervisor import Hypervisor
from vm_migration.machine.port import MachinePort
from vm_migration.machine.succession import Succession

_END_SECONDS: Final = 2.0
"""For a process that was asked to end; it holds nothing that anybody needs."""


class UpdateEnding:
    """The end of one update."""

    def __init__(self, account: Account, hypervisor: Hypervisor, succession: Succession) -> None:
        self.owned_ns: int = 0
        """When it was durable that the machine is the new process's, on the loop's clock; 0 before."""
        self.ran_ns: int = 0
        """When the guest had executed in the new process, on the host's monotonic clock; 0 where it has not."""
        self._account: Final = account
        self._hypervisor: Final = hypervisor
        self._succession: Final = succession

    async def come_to(self, reason: str, following: MachinePort | None) -> State:
        """Bring journal and machine to the end that both processes allow; return what is durable.

        `following` is the port to the new process, where this life of the agent has one.

        Raises:
            Stale: Another controller commands a process, or has the journal.
            Unreachable: A process lives and does not answer: nothing was concluded from that.
            MigrationError, MachineError: A step failed; all of it may be asked for again.
        """
        async with self._account.alone():
            try:
                return await self._come_to(reason, following)
            except CutOff as error:
                raise Stale("stale-controller", f"Machine process obeys a newer controller: {error}") from error

    async def clear(self) -> None:
        """End the process that is not the machine's own, where an earlier life left one, and a lost one's file."""
        await self._succession.end(other_process(self._account.record))
        await self._forget_lost()

    async def _come_to(self, reason: str, following: MachinePort | None) -> State:
        await self._settle(reason)
        custody = self._account.custody
        await bring_from_files(custody, self._hypervisor, self._succession)
        if went_over(custody.record):
            await self._put_in_place(custody, following)
        else:
            await self._succession.end(other_process(custody.record))
        state = (await bring_to_owed(custody)).state
        await self._forget_lost()
        return state

    async def _forget_lost(self) -> None:
        """Remove what the machine would wait by: from LOST on nobody may begin from it, and it would never go."""
        record = self._account.record
        if record.state is State.LOST:
            await self._succession.forget(self._account.custody.place, record.specification)

    async def _settle(self, reason: str) -> None:
        custody = self._account.custody
        while (record := await _certain(custody)).state in LEAVING:
            here = view(record, record.attempt or "", record.epoch, custody.process())
            there = successor_view(record, await self._successor_process(custody))
            actions = decide(here, there, past_deadline=True, over_pause_bound=True).actions
            if Action.ABORT_SOURCE in actions:
                try:
                    await settle(custody, None, self._account.key(), reason)
                except Unreachable:
                    if not await end_silent(custody, self._hypervisor, self._succession):
                        raise
            elif Action.RELEASE_SOURCE in actions:
                await custody.write(partial(released, destination=there, process=InstanceGone(record.instance)))
            elif Action.HAND_OFF in actions:
                await self._fence_off(custody)
                if waits_in_files(record):
                    await wake(custody, self._hypervisor, self._succession)
                else:
                    await custody.write(partial(succeeded, destination=there))
                self.owned_ns = loop_ns()
            elif Action.RECLAIM_SOURCE in actions:
                await take_back(custody)
            elif Action.LOSE_SOURCE in actions:
                await lose(custody, InstanceGone(record.instance), _image_gone(record.attempt or ""), reason)
            else:
                raise _unknown(custody)

    async def _fence_off(self, custody: Custody) -> None:
        """Have the old process never run the machine again; one that does not answer is ended for that."""
        try:
            await fence_off(custody)
        except Unreachable:
            if not await end_silent(custody, self._hypervisor, self._succession):
                raise
            await fence_off(custody)

    async def _put_in_place(self, custody: Custody, following: MachinePort | None) -> None:
        """Run the machine in the new process, then have everybody find that one; the old one ends."""
        record, update = custody.record, update_of(custody.record)
        if update is not None and is_superseded(custody):
            before = custody.port
            try:
                await before.release(record.owned_epoch)  # the epoch at which the new one runs
            except MachineError:  # one that is silent, or was told to run by nobody knows whom: it is not the owner
                await self._succession.end(update.predecessor)
            if following is not None and record.was_running and custody.process() is Process.ALIVE:
                self.ran_ns = await following.run(record.owned_epoch)
            self._succession.put_in_place(custody.place, record.instance)
            custody.port = self._hypervisor.connect(custody.place)
            with suppress(MachineError):
                await before.destroy()
            await before.close()
            await self._succession.end(update.predecessor, patience=_END_SECONDS)
        if custody.process() is Process.ALIVE:
            await custody.attach(record.owned_epoch)
            if waits_in_files(record) and record.was_running:
                self.ran_ns = await custody.port.run(record.owned_epoch)

    async def _successor_process(self, custody: Custody) -> Process:
        if waits_in_files(custody.record):
            return await waiting(custody, self._succession)
        update = update_of(custody.record)
        living = self._hypervisor.instance_lives("" if update is None else update.successor)
        if living is None:
            return Process.UNKNOWN
        return Process.ALIVE if living else Process.GONE


async def _certain(custody: Custody) -> Record:
    """Return the last record once it is known which one that is: what a failed write left may name who has the machine.

    Raises:
        Stale: Only the journal opened anew tells: RELEASED may stand, and the old process is gone.
        JournalUncertain: It is not known yet.
    """
    record = await custody.settle()
    if custody.uncertain and custody.process() is Process.GONE:
        raise Stale("journal-uncertain", "What was written last may stand or not, and the machine's process is gone")
    return record


def _unknown(custody: Custody) -> Unreachable:
    if waits_in_files(custody.record) and custody.process() is Process.GONE:
        return cannot_wake(custody.record)
    return Unreachable("process-silent", "A process of the machine lives and does not answer", "Look at it")


def _image_gone(attempt: str) -> SideView:
    return SideView(attempt, State.LOST, Process.GONE)
