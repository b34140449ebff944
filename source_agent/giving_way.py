"""Machines that this host takes for its own while another host has a higher claim.

::

    another host, any of the site   stands at TAKEN, or has gone on from it   this copy is RETIRED and freed
                                    has another claim above this host's       this copy is paused, a person is told

Which of both is vm_migration.handover.yielding's to decide. It is asked before anything is done to a machine, and again
when a person has a machine recovered.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from source_agent.attempts import Attempts
from source_agent.doubts import OUTRANKED, Doubts, keep_still
from source_agent.elsewhere import Elsewhere, Other, highest_claim
from source_agent.handing_over import retire
from source_agent.holdings import Holdings
from vm_migration.errors import MigrationError, Unreachable
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import Process, SideView
from vm_migration.handover.ownership import owe_run_state
from vm_migration.handover.record import Record
from vm_migration.handover.states import LEAVING
from vm_migration.handover.yielding import gives_way
from vm_migration.machine.errors import MachineError
from vm_migration.telemetry import logs

_log: Final = logs.get(__name__)


class GivingWay:
    """Asks the other hosts, and does what follows, machine by machine."""

    def __init__(self, holdings: Holdings, attempts: Attempts, doubts: Doubts, elsewhere: Elsewhere | None) -> None:
        self._holdings: Final = holdings
        self._attempts: Final = attempts
        self._doubts: Final = doubts
        self._elsewhere: Final = elsewhere

    async def look(self, machines: Sequence[str], *, asked: bool = False) -> frozenset[str]:
        """Give way where another host has a higher claim; `asked`: by a person. A silent host proves nothing.

        Returns the machines with which that could not be done yet: nothing may be done to those before it is.
        """
        if self._elsewhere is None:
            return frozenset()
        own = {machine: record for machine in machines if (record := await self._own(machine)) is not None}
        unmet = set()
        for machine, others in (await self._elsewhere.others(list(own.values()))).items():
            record = own[machine]
            owner = _owner(record, self._process(record), others, asked=asked)
            if owner is None and highest_claim(record, others) is None:
                continue
            try:
                await self._meet(machine, others, asked=asked)
            except (MigrationError, MachineError) as error:
                _log.error("machine could not be paused", machine=machine, reason=str(error))
                unmet.add(machine)
        return frozenset(unmet)

    async def _own(self, machine: str) -> Record | None:
        with contextlib.suppress(Unreachable):
            record = await asyncio.to_thread(self._holdings.journals.read_last, machine)
            if record.owns or record.state in LEAVING:
                return record
        return None

    def _process(self, record: Record) -> Process:
        living = self._holdings.hypervisor.instance_lives(record.instance)
        if living is None:
            return Process.UNKNOWN
        return Process.ALIVE if living else Process.GONE

    async def _meet(self, machine: str, others: Sequence[Other], *, asked: bool) -> None:
        async with self._holdings.hold(machine) as custody:
            owner = _owner(custody.record, custody.process(), others, asked=asked)
            if owner is None:
                await self._doubt(custody, others)
                return
            attempt = self._attempts.get(custody.record.attempt)
            if custody.record.closed or attempt is None or not attempt.open:
                await keep_still(custody)
                text = f"An operator took the machine at another host, at epoch {owner.highest_epoch}"
                await retire(custody, owner, text)
                self._doubts.settle(machine, OUTRANKED)
                return
        # Past the lock, which an attempt takes itself where its journal must be opened anew.
        await self._attempts.halt(attempt)
        await attempt.give_way(owner)

    async def _doubt(self, custody: Custody, others: Sequence[Other]) -> None:
        claim = highest_claim(custody.record, others)
        if claim is None:
            return
        self._doubts.raise_(custody.record.machine, OUTRANKED, str(claim))
        if custody.record.owns:  # also for the next life, which may not hear of the claim
            await custody.write(lambda last: owe_run_state(last, running=False))
        await keep_still(custody)


def _owner(record: Record, process: Process, others: Sequence[Other], *, asked: bool) -> SideView | None:
    for other in others:
        if other.record is not None:
            owner = gives_way(record, process, other.record, other.process, asked=asked)
            if owner is not None:
                return owner
    return None
