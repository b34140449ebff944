"""The way of an update up to its release: another process comes up beside the machine's own, and takes it over.

::

    OUTGOING  start -> offer -> prepared     the guest runs
              hand over -> ready             the guest stands still, devices work
    STOPPED   both processes named           the new one has everything, and outlives this agent from here on

Nothing of it is in the way of going back: until the release the old process has its machine again when it is told to.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Final

import msgspec

from source_agent.account import Account
from source_agent.progress import Phase
from source_agent.terms import Terms, encode
from vm_migration.errors import AttemptFailed
from vm_migration.handover.departure import pause_bound_ms, stopped
from vm_migration.handover.evidence import ProcessAnswer
from vm_migration.handover.record import Record
from vm_migration.handover.succession import UpdateTerms
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.errors import LaunchFailed, MachineRefused
from vm_migration.machine.port import MachinePort, Stop
from vm_migration.machine.succession import Succession, Successor, Updatable, not_updatable

TAKE_OVER_SECONDS: Final = 5.0
"""For which the guest may stand still while the other process takes over; tens of milliseconds are usual."""
_STANDSTILL_SECONDS: Final = 2 * TAKE_OVER_SECONDS
"""For which it may stand still in all before the old process has it again: what was handed over is given back first."""
_HINT: Final = "The machine runs in the process that it had; see vmm.log in its folder of the run directory"


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The other process, or the files, have everything, and nothing runs; `_ns` are on the loop's clock."""

    stop: Stop
    process: ProcessAnswer
    """The old one's."""
    handed_ns: int
    ready_ns: int


async def in_time(terms: Terms, way: Coroutine[None, None, TakenOver]) -> TakenOver:
    """Go a way within the time that an update has.

    Raises:
        AttemptFailed: It took longer.
    """
    seconds = terms.timeout_ms / 1000
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await way
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise AttemptFailed("timeout", f"The update was not done within {seconds:g} s", _HINT) from error


class Course:
    """One update's, for as long as it can be given up."""

    def __init__(self, account: Account, succession: Succession) -> None:
        self.following: MachinePort | None = None
        """The port to the new process, attached."""
        self._account: Final = account
        self._succession: Final = succession
        self._successor: Successor | None = None
        self._kept = False

    async def run(self) -> TakenOver:
        """Go the whole way.

        Raises:
            AttemptFailed: The other process did not come up, or did not take over.
            MachineError, MigrationError: A process or the journal failed otherwise.
        """
        return await in_time(self._account.terms, self._run())

    async def _run(self) -> TakenOver:
        account = self._account
        account.enter(Phase.STARTING, "starts a process of the installed version; the guest runs")
        port = account.custody.port
        if not isinstance(port, Updatable):
            raise not_updatable(account.record.machine)
        try:
            self._successor = successor = await self._succession.start(account.custody.place)
            await port.offer_update(successor.path)
            await successor.prepared()
        except (LaunchFailed, MachineRefused) as error:
            raise AttemptFailed("successor-not-prepared", str(error), _HINT) from error
        account.enter(Phase.SWITCHING, "hands the machine over; the guest stands still, its devices work")
        limit = asyncio.timeout(_STANDSTILL_SECONDS)
        try:
            async with limit:
                stop = await port.hand_over(TAKE_OVER_SECONDS)
                handed_ns = loop_ns()
                name = await successor.ready()
                process = await self._seen(stop, name)
        except (LaunchFailed, MachineRefused) as error:
            raise AttemptFailed("not-taken-over", str(error), _HINT) from error
        except TimeoutError as error:
            if not limit.expired():
                raise
            text = f"The new process did not answer within {_STANDSTILL_SECONDS:g} s of the stop"
            raise AttemptFailed("not-taken-over", text, _HINT) from error
        await account.custody.write(lambda last: self._stopped(last, stop, name))
        account.terms = _with_processes(account.terms, account.record.instance, name)
        self.keep()  # from the release on, whoever comes next must find it
        return TakenOver(stop, process, handed_ns, loop_ns())

    def keep(self) -> None:
        """Have the new process outlive this agent, where one was started: a record names it; idempotent."""
        if self._successor is not None and not self._kept:
            self._kept = True
            self._successor.keep()

    async def end(self) -> None:
        """End the new process, where one was started: it is not to have the machine."""
        if self._successor is not None:
            await self._successor.end()

    async def let_go(self) -> None:
        """Let go of the new process; one that was not kept ends."""
        if self._successor is not None:
            self._successor.close()
        if self.following is not None:
            await self.following.close()

    async def _seen(self, stop: Stop, name: str) -> ProcessAnswer:
        """Command the new process, and return what the old one answers once both are seen to stand at the stop."""
        account, record = self._account, self._account.record
        self.following = self._succession.connect(account.custody.place)
        there = await self.following.attach(record.epoch, record.controller)
        if there.run_state != "incoming" or there.pause != stop.pause or not name.endswith(f":{there.instance}"):
            text = f"The new process is {there.run_state} at stop {there.pause}, not waiting at stop {stop.pause}"
            raise AttemptFailed("not-taken-over", text, _HINT)
        return await account.custody.answer()

    def _stopped(self, last: Record, stop: Stop, name: str) -> Record:
        terms = self._account.terms
        following = stopped(last, pause=stop.pause, bound_ms=pause_bound_ms(terms.downtime_limit_ms))
        return msgspec.structs.replace(following, policy=encode(_with_processes(terms, last.instance, name)))


def _with_processes(terms: Terms, predecessor: str, successor: str) -> Terms:
    mode = "transfer" if terms.update is None else terms.update.mode
    update = UpdateTerms(mode=mode, predecessor=predecessor, successor=successor)
    return msgspec.structs.replace(terms, update=update)
