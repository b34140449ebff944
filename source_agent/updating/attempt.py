"""One update at its host, from Begin to its end; the agent finishes or aborts it alone.

::

    begun --> starting --> switching --> releasing --> resuming --> completed
      |          |             |                          |
      '----------'-------------'--> aborted               '--> aborted, where the new process has gone

Up to the release the work is one task that can be cancelled at any point (source_agent.updating.course); past it,
nothing cancels, and what an end needs is repeated until it succeeds (source_agent.updating.ending).
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from source_agent.account import Account
from source_agent.doubts import Doubts, keep_still
from source_agent.handing_over import release, retire
from source_agent.holdings import Holdings
from source_agent.outcome import text_of
from source_agent.progress import Phase
from source_agent.shown_attempt import ShownAttempt
from source_agent.surroundings import Surroundings
from source_agent.terms import Terms
from source_agent.updating.course import Course, TakenOver
from source_agent.updating.ending import UpdateEnding
from source_agent.updating.leaving import Leaving
from source_agent.updating.replacing import rehearse, replace_program
from vm_migration.errors import AttemptFailed, Cancelled, MigrationError, Refused, Stale
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import SideView
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.handover.succession import went_over
from vm_migration.machine.errors import MachineError
from vm_migration.machine.succession import Replacement
from vm_migration.telemetry import logs
from vm_migration.transfer.downtime import Boundaries, Downtime, downtime

Stood = Callable[[], Downtime | None]
"""How long the guest stood still, once that is known; None where it did not run, or nobody knows."""
_RESUMING: Final = {"reboot": "has the machine go on in new processes, which start from its files"}
_log: Final = logs.get(__name__)


class UpdateAttempt(ShownAttempt):
    """Drives one update; `board` shows it."""

    def __init__(
        self,
        custody: Custody,
        terms: Terms,
        around: Surroundings,
        holdings: Holdings,
        doubts: Doubts | None = None,
    ) -> None:
        super().__init__(Account(custody, terms, around, holdings, doubts))
        self.unheard: Final = False
        """Nobody else is asked."""
        way = Leaving if self._mode == "reboot" else Course
        self._course: Final[Course | Leaving] = way(self._account, holdings.succession)
        self._ending: Final = UpdateEnding(self._account, holdings.hypervisor, holdings.succession)
        self._succession: Final = holdings.succession

    def note_peer(self, sequence: int) -> None:
        """Take what a destination says of its journal; an update has none, and nothing is noted."""

    def hurry(self) -> None:
        """Have whatever is waited for tried again now."""
        self._patience.hurry()

    # the work

    async def run(self) -> None:
        """Drive to an end; every failure before the release ends in ABORTED or LOST, and is shown on the board."""
        try:
            stood = await (self._replaced() if self._mode == "exec" else self._released())
        except asyncio.CancelledError:
            if not self._was_wished():
                raise
            failure: MigrationError = self._as_asked()
        except Exception as error:  # noqa: BLE001 - whatever it is, the guest must not stay stopped for it
            failure = self._failure(error)
        else:
            self._decided.set()
            self._account.enter(Phase.RESUMING, _RESUMING.get(self._mode, "has the new process run the machine"))
            await self._end(_gone_again(), stood)
            return
        finally:
            self._until_release = None
        self._account.put(replace(self._account.now, failure=text_of(failure)))
        await self._end(failure, _not_known)

    async def recover(self) -> None:
        """Bring an update of an earlier life of this agent to the end that both processes allow."""
        text = "The source agent was restarted during the update"
        await self._end(AttemptFailed("agent-restarted", text, "Update it again"), _not_known)

    def show_outcome(self) -> None:
        """Show what the journal says of an update of an earlier life that is over."""
        record = self.record
        if went_over(record):
            self._account.show_completed()
        else:
            failure = AttemptFailed("attempt-failed", record.reason or "The update failed", "Update it again")
            self._account.show_end(failure, record.state)

    async def tell(self) -> None:
        """End what an earlier life left; nobody is waiting for news of an update."""
        await self._ending.clear()

    async def give_way(self, owner: SideView) -> None:
        """Retire this host's copy of a machine that an operator took elsewhere; nobody may be driving the attempt."""
        await self._ending.clear()
        await keep_still(self.custody)
        text = f"An operator gave the machine to another host, at epoch {owner.highest_epoch}"
        await self._patience.insist(lambda: retire(self.custody, owner, text))
        self._account.show_end(AttemptFailed("taken-elsewhere", text, "See: viaduct doctor"), State.RETIRED)

    @property
    def _mode(self) -> str:
        return "" if self.terms.update is None else self.terms.update.mode

    async def _released(self) -> Stood:
        taken_over = await self._unless_cancelled(self._course.run())
        # Between the last look at a cancel and the write of RELEASED nothing is waited for.
        self._account.enter(Phase.RELEASING, "gives the machine to the new process: RELEASED is being written")
        await release(self.custody, self.attempt, taken_over.stop.pause, taken_over.process)
        return lambda: _handed_over(taken_over, self._ending) if self._ending.ran_ns else None

    async def _replaced(self) -> Stood:
        await self._unless_cancelled(rehearse(self._account, self._succession))
        found = await replace_program(self._account, self._succession)
        return lambda: _replaced(found) if found.stop.was_running else None

    async def _end(self, failure: MigrationError, stood: Stood) -> None:
        account = self._account
        try:
            last = await self._patience.insist(self._last_known)
            if last.state is State.OUTGOING:  # no record names the new process, or ever will
                await self._course.end()
            else:
                self._course.keep()
            state = await self._patience.insist(lambda: self._ending.come_to(failure.message, self._course.following))
        except Stale as error:
            _log.error("somebody else has the machine in hand", attempt=self.attempt, reason=error.message)
            account.waiting(f"this agent has no say any more: {error.message}")
            return
        finally:
            await self._course.let_go()
        self._decided.set()
        with contextlib.suppress(MachineError):
            self.described = await self.custody.port.describe()
        if not went_over(account.record):
            account.show_end(failure, state)
            return
        guest = None if self.described is None else self.described.guest
        ended = replace(account.now, failure=None, total_ms=account.elapsed_ms(), downtime=stood(), guest=guest)
        account.put(ended)
        account.show_completed()

    async def _last_known(self) -> Record:
        """Return the last record, once the one that was being written stands or is known not to."""
        return await self._account.custody.settle()

    def _is_given_away(self) -> bool:
        return self.record.state is State.RELEASED or went_over(self.record)

    def _as_asked(self) -> Cancelled:
        return Cancelled("cancelled", "Update was cancelled", "The machine runs in the process that it had")

    def _past_return_already(self) -> Refused:
        text = f"Update {self.attempt} is {self._account.now.phase}: the machine is its new process's"
        return Refused("past-return", text, "Wait for its end")


def _not_known() -> Downtime | None:
    return None


def _replaced(found: Replacement) -> Downtime:
    """Return a standstill in which only a program was started."""
    at = found.stop.last_executed_ns
    return downtime(Boundaries(at, at, at, at, at, at, found.executed_ns), shared_clock=True)


def _handed_over(taken_over: TakenOver, ending: UpdateEnding) -> Downtime:
    """Return the parts of the standstill: handing over, writing that it is ready, giving it away, running."""
    boundaries = Boundaries(
        stopped=taken_over.stop.last_executed_ns,
        paused=taken_over.stop.last_executed_ns,
        last_round=taken_over.stop.last_executed_ns,
        device_state=taken_over.handed_ns,
        verified=taken_over.ready_ns,
        handed_off=ending.owned_ns,
        resumed=ending.ran_ns,
    )
    return downtime(boundaries, shared_clock=True)


def _gone_again() -> AttemptFailed:
    text = "The new process ended before it was told to run the machine"
    return AttemptFailed("successor-lost", text, "The machine runs in the process that it had; update it again")
