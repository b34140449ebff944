"""What a source agent does with what an earlier life left, before it serves anything, and later where it must wait.

Every journal is read. Other hosts are asked first whether one has a higher claim on a machine that this host takes for
its own. An attempt that was open and not released asks its destination and ends, a released one is handed over again, a
machine that owes a run state is brought to it. No machine is started from a journal alone.
"""

import asyncio
import contextlib
import itertools
from typing import Final

from source_agent.attempts import GONE, AnyAttempt, Attempts
from source_agent.doubts import Doubts
from source_agent.elsewhere import Elsewhere
from source_agent.ending import bring_to_owed
from source_agent.giving_way import GivingWay
from source_agent.holdings import Holdings
from source_agent.insisting import pause_before
from source_agent.terms import decode
from source_agent.updating.waking import bring_from_files
from vm_migration.errors import Unreachable
from vm_migration.handover.custody import Custody
from vm_migration.handover.headings import name_in
from vm_migration.handover.record import Record
from vm_migration.handover.states import LEAVING, State
from vm_migration.handover.succession import update_of
from vm_migration.telemetry import logs

_PATIENCE: Final = 15.0
"""Seconds for which a start waits for what earlier attempts come to; what takes longer goes on beside the service."""
_HURRY_PATIENCE: Final = 5.0
"""Seconds for which somebody who wants a machine recovered now waits for what comes of it."""
_RETRY_EVERY: Final = 10.0
_TOLD: Final = frozenset({State.ABORTED, State.LOST, State.RETIRED})
"""What a destination is told of, until it has heard."""
_log: Final = logs.get(__name__)


class Restarting:
    """Goes on with what is left, machine by machine."""

    def __init__(self, holdings: Holdings, attempts: Attempts, doubts: Doubts, elsewhere: Elsewhere | None) -> None:
        self.failures: Final[dict[str, str]] = {}
        """Why a machine could not be recovered yet."""
        self._holdings: Final = holdings
        self._attempts: Final = attempts
        self._doubts: Final = doubts
        self._giving_way: Final = GivingWay(holdings, attempts, doubts, elsewhere)
        self._retrying: Final[set[asyncio.Task[None]]] = set()

    async def all(self) -> None:
        """Go on with all of it, as far as the journals decide it; the silent are asked again later."""
        machines = await asyncio.to_thread(self._holdings.journals.machines)
        unmet = await self._giving_way.look(machines)
        for machine in machines:
            if machine in unmet or not await self._tried(machine):
                self.soon(machine)
        await asyncio.gather(*map(self._until_settled, self._attempts))

    def soon(self, machine: str) -> None:
        """Go on in a moment with what is open at a machine and driven by nobody, until that has come to something."""
        task = asyncio.create_task(self._later(machine), name=f"recovery of {machine}")
        self._retrying.add(task)
        task.add_done_callback(self._retrying.discard)

    async def now(self, machine: str) -> bool:
        """Go on now with what an earlier life left of a machine, or with its attempt that waits.

        Returns whether that could be begun: where it must be paused first for another host's claim, and could not be,
        it is tried again later.
        """
        unmet = await self._giving_way.look([machine], asked=True)
        attempts = [each for each in self._attempts if each.open and each.record.machine == machine]
        for attempt in attempts:
            attempt.hurry()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HURRY_PATIENCE):
                    while attempt.open and not attempt.unheard:
                        await attempt.board.next(_HURRY_PATIENCE)
        if unmet:
            self.soon(machine)
        elif not attempts:
            await self._tried(machine)
        return not unmet

    async def stop(self) -> None:
        """Try nothing any more."""
        retrying = set(self._retrying)
        for task in retrying:
            task.cancel()
        await asyncio.gather(*retrying, return_exceptions=True)

    async def _tried(self, machine: str, *, again: bool = False) -> bool:
        """Go on with a machine that is not doubted; `again` asks the other hosts anew before."""
        try:
            if again:
                await self._look_again(machine)
            if not self._doubts.text(machine):
                await self._one(machine)
        except Exception as error:  # noqa: BLE001 - one machine that cannot be recovered must not keep the others away
            _log.error("machine could not be recovered", machine=machine, exc_info=error)
            self.failures[machine] = f"could not be recovered, and is tried again: {error}"
            return False
        self.failures.pop(machine, None)
        return True

    async def _look_again(self, machine: str) -> None:
        if await self._giving_way.look([machine]):
            raise Unreachable("process-silent", "Another host has a higher claim, and it could not be paused")

    async def _later(self, machine: str) -> None:
        for retry in itertools.count():
            await asyncio.sleep(pause_before(retry, _RETRY_EVERY))  # nobody tells when the others can be asked again
            if await self._tried(machine, again=True):
                return

    async def _until_settled(self, attempt: AnyAttempt) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                while attempt.open and attempt.record.state is not State.RELEASED and not attempt.unheard:
                    await attempt.board.next(_PATIENCE)
        except TimeoutError:
            _log.error("attempt of an earlier life is still open", attempt=attempt.attempt)

    async def _one(self, machine: str) -> None:
        record = await asyncio.to_thread(self._holdings.journals.read_last, machine)
        with logs.bound(machine=machine, attempt=record.attempt or "", epoch=record.epoch):
            await self._go_on(record)

    async def _go_on(self, record: Record) -> None:
        machine = record.machine
        if record.state in GONE:
            await self._sweep(record)
        left = record.policy and (record.state in _TOLD or (record.attempt and update_of(record) is not None))
        if (record.state in LEAVING or left) and self._attempts.get(record.attempt) is None:
            async with self._holdings.hold(machine) as custody:
                record = custody.record
                attempt = self._attempts.admit(custody, decode(record.policy), name_in(record))
            if record.state in LEAVING:
                self._attempts.drive(attempt, attempt.recover())
            else:
                attempt.show_outcome()
                self._attempts.tell(attempt)
        if record.owns and not record.run_confirmed:
            async with self._holdings.hold(machine) as custody:
                await bring_from_files(custody, self._holdings.hypervisor, self._holdings.succession)
                record = await bring_to_owed(custody)

    async def _sweep(self, record: Record) -> None:
        """Free what a machine that is not here any more has left, where an earlier life did not come to it.

        The journal is opened for that: an agent that was frozen since it read it frees nothing that has come back.
        """
        instance = self._holdings.hypervisor.of_text(record.machine).instance()
        if instance is None or (instance.name != record.instance and record.state is not State.DESTROYED):
            return
        async with self._holdings.alone(record.machine):
            await self._holdings.drop(record.machine)
            custody = await Custody.open(self._holdings.journals, self._holdings.hypervisor, record.machine)
            try:
                if custody.record.state in GONE:
                    _log.warning("freeing what is left of a machine", machine=record.machine, state=record.state)
                    await custody.take_away(kill=True)
            finally:
                await custody.close()
