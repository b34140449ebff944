"""One attempt at its source, from Begin to its end. The agent finishes or aborts it alone.

::

    begun --Start--> pre-copy --fits--> stopping --> verifying --READY--> releasing --> handing-over --> completed
      |                 |                  |             |
      '-----------------'------------------'-------------'-----> aborted (ABORTED durable, then the guest resumes)

Up to READY the work is one task that can be cancelled at any point (source_agent.getting_ready); past it, nothing
cancels. What an end needs is repeated until it succeeds (source_agent.ending): a machine never stays stopped because
one answer did not come.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final, TypeVar

import msgspec

from source_agent.account import Account, Keeper
from source_agent.destination_link import DestinationLink
from source_agent.ending import bring_to_owed, settle, take_back, tell_to_discard
from source_agent.getting_ready import GettingReady
from source_agent.handing_over import fence_off, hand_over, release, retire, tell_retired, told_retired
from source_agent.insisting import insist
from source_agent.outcome import as_asked, ended, failure_of, text_of, unexpected
from source_agent.progress import CANCELLABLE, ENDED, Outcome, Phase, ProgressBoard
from source_agent.standstill import downtime_of
from source_agent.surroundings import StartOrder, Surroundings
from source_agent.switchover import Ready
from source_agent.terms import Terms
from vm_migration.api.v1 import types_pb2
from vm_migration.errors import AttemptFailed, MigrationError, Refused, Stale
from vm_migration.handover.custody import Custody
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.telemetry import logs
from vmm.process.control import Description

__all__ = ["OutgoingAttempt", "StartOrder", "Surroundings"]

_log: Final = logs.get(__name__)
_NEWS_SECONDS: Final = 1.0
_RENEWALS: Final = 4
_Result = TypeVar("_Result")


class OutgoingAttempt:
    """Drives one attempt; `board` shows it."""

    def __init__(self, custody: Custody, terms: Terms, around: Surroundings, keeper: Keeper | None = None) -> None:
        self.described: Description | None = None
        self._account: Final = Account(custody, terms, around, keeper)
        self._getting_ready: Final = GettingReady(self._account)
        self._until_ready: asyncio.Task[tuple[DestinationLink, Ready]] | None = None
        self._cancelled = False
        self._decided: Final = asyncio.Event()
        """An end is durable, or the release."""
        self._heard = False

    @property
    def custody(self) -> Custody:
        """The machine in this agent's hands."""
        return self._account.custody

    @property
    def attempt(self) -> str:
        """Which attempt."""
        return self._account.attempt

    @property
    def board(self) -> ProgressBoard:
        """Where it is shown."""
        return self._account.board

    @property
    def record(self) -> Record:
        """The last record of the machine's journal that speaks of this attempt."""
        return self._account.record

    @property
    def open(self) -> bool:
        """Whether the attempt has not come to an end."""
        return self._account.now.phase not in ENDED

    def key(self) -> types_pb2.AttemptKey:
        """Return the attempt's key, as the journal has it."""
        return self._account.key()

    # the orchestrator's hands

    def start(self, order: StartOrder) -> None:
        """Begin the rounds; asked again, nothing changes."""
        self._getting_ready.start(order)

    async def cancelled(self, longest: float) -> None:
        """End the attempt and wait until ABORTED is durable, or for so many seconds: the wish stands then.

        Raises:
            Refused: It is past the point of no return, or ended otherwise.
        """
        self.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self._decided.wait()
        if self.record.state in (State.RELEASED, State.RETIRED):
            raise self._past_return_already()

    def cancel(self) -> None:
        """Wish for the attempt's end; asked again, nothing changes.

        Raises:
            Refused: It is past the point of no return, or ended otherwise.
        """
        phase = self._account.now.phase
        if self._cancelled or phase is Phase.ABORTED:
            return
        if phase not in CANCELLABLE:
            raise self._past_return_already()
        self._cancelled = True
        self._account.waiting("was cancelled, and ends")
        if self._until_ready is not None:
            self._until_ready.cancel()

    def force(self) -> None:
        """Switch over at once, whatever the standstill; asked again, nothing changes.

        Raises:
            Refused: Its rounds have not begun, or are over.
        """
        self._getting_ready.force()

    def tune(self, *, downtime_limit_ms: int, max_bandwidth_bytes_per_s: int) -> None:
        """Change limits of a running attempt; 0 leaves one as it is."""
        terms = self._account.terms
        self._account.terms = msgspec.structs.replace(
            terms,
            downtime_limit_ms=downtime_limit_ms or terms.downtime_limit_ms,
            max_bandwidth_bytes_per_s=max_bandwidth_bytes_per_s or terms.max_bandwidth_bytes_per_s,
        )
        self._getting_ready.tune(self._account.terms)

    # the work

    async def run(self) -> None:
        """Drive to an end; every failure before the release ends in ABORTED or LOST, and is shown on the board."""
        async with AsyncExitStack() as stack:
            try:
                link, ready = await self._readied(stack)
                await self._past_return(link, ready)
            except asyncio.CancelledError:
                if not self._cancelled:
                    raise
                failure: MigrationError = as_asked()
            except Exception as error:  # noqa: BLE001 - whatever it is, the guest must not stay stopped for it
                failure = self._failure(error)
            else:
                return
            finally:
                # Both lead to the mapping of the machine's RAM, which must go when the attempt is over.
                self._until_ready = None
                self._getting_ready.forget()
            await self._end(failure)

    async def recover(self) -> None:
        """Bring an attempt of an earlier life of this agent to the end that the journals allow."""
        text = "The source agent was restarted during the attempt"
        await self._end(AttemptFailed("agent-restarted", text, "Begin a new attempt"))

    def show_outcome(self) -> None:
        """Show what the journal says of an attempt of an earlier life that is over."""
        record = self.record
        if record.state is State.RETIRED:
            self._show_completed()
        else:
            failure = AttemptFailed("attempt-failed", record.reason or "Attempt failed", "Begin a new attempt")
            self._show_end(failure, record.state)

    async def tell(self) -> None:
        """Tell the destination how it ended, until it has heard; its address is journalled before a byte is sent."""
        state = self.record.state
        if not self._account.terms.control_address or state not in (State.ABORTED, State.LOST, State.RETIRED):
            return
        async with self._account.link() as link:
            if state is State.RETIRED and not self._heard:
                await tell_retired(link, self.key())
            elif state is not State.RETIRED:
                await tell_to_discard(link, self.key(), self.custody)
        with contextlib.suppress(Stale):  # somebody else has the journal by now; he may tell once more
            await self.custody.write(lambda last: self._nothing_left_to_tell(last, state))

    async def _readied(self, stack: AsyncExitStack) -> tuple[DestinationLink, Ready]:
        self._until_ready = asyncio.create_task(self._getting_ready.run(stack), name=f"attempt {self.attempt}")
        if self._cancelled:
            self._until_ready.cancel()
        found = await self._until_ready
        if self._cancelled:  # the wish came after the task's last step, and before the release
            raise as_asked()
        return found

    def _past_return_already(self) -> Refused:
        phase = self._account.now.phase
        whose = "there is no machine any more" if phase is Phase.LOST else "the machine is its destination's"
        return Refused("past-return", f"Attempt {self.attempt} is {phase}: {whose}", "Wait for its end")

    async def _past_return(self, link: DestinationLink, ready: Ready) -> None:
        # Between the last look at a cancel and the write of RELEASED nothing is waited for.
        self._account.enter(Phase.RELEASING, "gives the machine up: RELEASED is being written")
        await release(self.custody, self.attempt, ready.stop.pause, ready.process)
        self._decided.set()
        await fence_off(self.custody)
        await self._hand_over(link, ready)

    async def _hand_over(self, link: DestinationLink, ready: Ready | None) -> None:
        account, record = self._account, self.custody.record
        account.enter(Phase.HANDING_OVER, "hands the machine over")
        handed = await hand_over(link, self.key(), record.pause, bytes.fromhex(record.secret), account.waiting)
        if handed is None:
            state = await self._insist(self._taken_back)
            text = "The destination lost its image before it took over"
            self._show_end(AttemptFailed("destination-lost", text, "The machine stays at its source; try again"), state)
            return
        standstill = None
        if ready is not None and record.was_running:
            standstill = downtime_of(ready, handed, account.around.boot_id)
        shown = replace(account.now, downtime=standstill, total_ms=account.elapsed_ms(), reason="frees the paused copy")
        account.put(shown)
        await self._insist(lambda: retire(self.custody, self.key()))
        self._heard = await told_retired(link, self.key(), _NEWS_SECONDS)
        self._show_completed()

    # how it ends otherwise

    async def _end(self, failure: MigrationError) -> None:
        account = self._account
        account.put(replace(account.now, failure=text_of(failure)))
        try:
            state = await self._insist(lambda: self._settled(failure))
            self._decided.set()
            if state is State.RETIRED:  # another life of this agent came to that
                self._show_completed()
                return
            if state is not State.RELEASED:
                account.waiting(f"{state} is durable; brings the machine to the run state that it is owed")
                self._show_end(failure, await self._insist(self._as_owed))
                return
            account.put(replace(account.now, failure=None))
            async with account.link() as link:
                await fence_off(self.custody)
                await self._hand_over(link, None)
        except Stale as error:
            _log.error("somebody else has the machine in hand", attempt=self.attempt, reason=error.message)
            account.waiting(f"this agent has no say any more: {error.message}")

    async def _settled(self, failure: MigrationError) -> State:
        link = self._account.link if self._account.terms.control_address else None
        return await settle(self.custody, link, self.key(), failure.message)

    async def _as_owed(self) -> State:
        async with self._account.alone():
            return (await bring_to_owed(self.custody)).state

    async def _taken_back(self) -> State:
        async with self._account.alone():
            return await take_back(self.custody)

    async def _insist(self, step: Callable[[], Awaitable[_Result]]) -> _Result:
        """Repeat a step until it succeeds; where the journal must be opened anew, it is, and the step begun again.

        Raises:
            Stale: The machine has gone on without this attempt.
        """

        def tell(reason: str) -> None:
            self._account.waiting(f"not settled yet: {reason}")

        for _ in range(_RENEWALS):
            try:
                return await insist(step, tell)
            except Stale as error:
                _log.warning("journal is opened anew", attempt=self.attempt, reason=error.message)
                await insist(self._account.renew, tell)
        return await insist(step, tell)

    def _failure(self, error: BaseException) -> MigrationError:
        failure = failure_of(error, cancelled=self._cancelled)
        if failure is None:
            _log.error("attempt failed by our own fault", attempt=self.attempt, exc_info=error)
            failure = unexpected(error)
        return failure

    def _nothing_left_to_tell(self, last: Record, state: State) -> Record:
        if last.attempt != self.attempt or last.state is not state:
            return last
        return msgspec.structs.replace(last, policy="")

    def _show_completed(self) -> None:
        now = self._account.now
        self._account.put(replace(now, phase=Phase.COMPLETED, outcome=Outcome.COMPLETED, reason=""))

    def _show_end(self, failure: MigrationError, state: State) -> None:
        shown = ended(self._account.now, failure, state)
        self._account.put(replace(shown, total_ms=self._account.elapsed_ms()))
