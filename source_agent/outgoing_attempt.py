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
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

import msgspec

from source_agent.account import Account, Keeper
from source_agent.destination_link import DestinationLink
from source_agent.doubts import CONTRADICTION, Doubts
from source_agent.earlier_life import EarlierLife
from source_agent.ending import bring_to_owed, settle, tell_to_discard
from source_agent.getting_ready import GettingReady
from source_agent.handing_over import fence_off, release, tell_retired
from source_agent.outcome import as_asked, text_of
from source_agent.past_return import PastReturn
from source_agent.progress import Phase
from source_agent.sequences import ROLLED_BACK
from source_agent.shown_attempt import ShownAttempt
from source_agent.surroundings import StartOrder, Surroundings
from source_agent.switchover import Ready
from source_agent.terms import Terms
from vm_migration.errors import AttemptFailed, Cancelled, MigrationError, Refused, Stale, Unresolved
from vm_migration.handover.custody import Custody
from vm_migration.handover.departure import released
from vm_migration.handover.evidence import SideView
from vm_migration.handover.ownership import taken
from vm_migration.handover.record import Record
from vm_migration.handover.recovery import Action
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineError
from vm_migration.telemetry import logs

__all__ = ["OutgoingAttempt", "StartOrder", "Surroundings"]

_LIMITED: Final = frozenset({Phase.BEGUN, Phase.PRE_COPY})
_log: Final = logs.get(__name__)


class OutgoingAttempt(ShownAttempt):
    """Drives one attempt; `board` shows it."""

    def __init__(
        self,
        custody: Custody,
        terms: Terms,
        around: Surroundings,
        keeper: Keeper | None = None,
        doubts: Doubts | None = None,
    ) -> None:
        super().__init__(Account(custody, terms, around, keeper, doubts))
        self._getting_ready: Final = GettingReady(self._account)
        self._past: Final = PastReturn(self._account, self._patience)
        self._earlier: EarlierLife | None = None

    # the orchestrator's hands

    def start(self, order: StartOrder) -> None:
        """Begin the rounds; asked again, nothing changes."""
        self._getting_ready.start(order)

    def force(self) -> None:
        """Switch over at once, whatever the standstill; asked again, nothing changes.

        Raises:
            Refused: Its rounds have not begun, or are over.
        """
        self._getting_ready.force()

    def tune(self, *, downtime_limit_ms: int, max_bandwidth_bytes_per_s: int) -> None:
        """Change limits of a running attempt; 0 leaves one as it is.

        Raises:
            Refused: Its rounds are over, so that no limit would count any more.
        """
        phase, terms = self._account.now.phase, self._account.terms
        if (downtime_limit_ms or max_bandwidth_bytes_per_s) and phase not in _LIMITED:
            text = f"Attempt {self.attempt} is {phase}: there is no round that a limit would change"
            raise Refused("not-in-rounds", text, "Wait for its end")
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
                link, ready = await self._unless_cancelled(self._getting_ready.run(stack))
                await self._past_return(link, ready)
            except asyncio.CancelledError:
                if not self._was_wished():
                    raise
                failure: MigrationError = self._as_asked()
            except Exception as error:  # noqa: BLE001 - whatever it is, the guest must not stay stopped for it
                failure = self._failure(error)
            else:
                return
            finally:
                # Both lead to the mapping of the machine's RAM, which must go when the attempt is over.
                self._until_release = None
                self._getting_ready.forget()
            await self._end(failure)

    async def recover(self) -> None:
        """Bring an attempt of an earlier life of this agent to the end that both journals allow."""
        text = "The source agent was restarted during the attempt"
        failure: MigrationError = AttemptFailed("agent-restarted", text, "Begin a new attempt")
        if self.record.state in (State.OUTGOING, State.STOPPED) and self._account.terms.control_address:
            try:
                decision, there = await self._patience.insist(self._earlier_life().decided)
            except Stale as error:
                self._no_say(error)
                return
            if Action.RETIRE_SOURCE in decision.actions:
                await self._past.taken_elsewhere(there)
                return
            if Action.RELEASE_SOURCE in decision.actions:
                await self._release_after_all(failure, there)
                return
        await self._end(as_asked() if self._cancelled else failure)

    @property
    def unheard(self) -> bool:
        """Whether the destination of an attempt of an earlier life was asked, and did not decide anything."""
        return self._earlier is not None and self._earlier.unheard.is_set()

    def note_peer(self, sequence: int) -> None:
        """Take what the destination says of its journal when it asks; 0 says nothing.

        Raises:
            Stale: Its journal was rolled back.
        """
        self._account.seen.note(sequence, self.record.peer)

    def hurry(self) -> None:
        """Have whatever is waited for tried again now."""
        if self._earlier is not None:
            self._earlier.unheard.clear()
        self._patience.hurry()

    def _earlier_life(self) -> EarlierLife:
        self._earlier = EarlierLife(self._account, self._patience.rest, lambda: self._cancelled)
        return self._earlier

    async def _release_after_all(self, failure: MigrationError, there: SideView) -> None:
        """Release a machine that an earlier life stopped: its destination is READY, and its pause within the bound."""
        try:
            process = await self.custody.answer_or_proof()
            await self.custody.write(lambda last: released(last, destination=there, process=process))
        except (MigrationError, MachineError) as error:
            _log.warning("machine could not be released", attempt=self.attempt, reason=str(error))
        await self._end(failure)

    def show_outcome(self) -> None:
        """Show what the journal says of an attempt of an earlier life that is over."""
        record = self.record
        if record.state is State.RETIRED and not record.reason:
            self._account.show_completed()
        else:
            failure = AttemptFailed("attempt-failed", record.reason or "Attempt failed", "Begin a new attempt")
            self._account.show_end(failure, record.state)

    async def tell(self) -> None:
        """Tell the destination how it ended, until it has heard; its address is journalled before a byte is sent."""
        state = self.record.state
        if not self._account.terms.control_address or state not in (State.ABORTED, State.LOST, State.RETIRED):
            return
        async with self._account.link() as link:
            if state is State.RETIRED and not self._past.told:
                await tell_retired(link, self.key())
            elif state is not State.RETIRED:
                await tell_to_discard(link, self.key(), self.custody)
        with contextlib.suppress(Stale):  # somebody else has the journal by now; he may tell once more
            await self.custody.write(lambda last: self._nothing_left_to_tell(last, state))

    def _is_given_away(self) -> bool:
        return self.record.state in (State.RELEASED, State.RETIRED)

    def _as_asked(self) -> Cancelled:
        return as_asked()

    def _past_return_already(self) -> Refused:
        phase = self._account.now.phase
        whose = "there is no machine any more" if phase is Phase.LOST else "the machine is its destination's"
        return Refused("past-return", f"Attempt {self.attempt} is {phase}: {whose}", "Wait for its end")

    async def _past_return(self, link: DestinationLink, ready: Ready) -> None:
        # Between the last look at a cancel and the write of RELEASED nothing is waited for.
        self._account.enter(Phase.RELEASING, "gives the machine up: RELEASED is being written")
        await release(self.custody, self.attempt, ready.stop.pause, ready.process)
        self._decided.set()
        await self._patience.insist(lambda: fence_off(self.custody))
        await self._past.hand_over(link, ready)

    async def take(self, highest_seen: int, reason: str) -> None:
        """Take a released machine back, on an operator's word; nobody may be handing it over at this moment.

        Raises:
            Refused: It is not released, or its process does not stand still at its stop.
            MachineError: It does not answer.
        """
        answer = await self.custody.answer()
        if answer.running or answer.pause != self.record.pause:
            text = f"The process of machine {self.record.machine} does not stand at stop {self.record.pause}"
            raise Refused("process-not-confirmed", text, "See: viaduct doctor")
        await self.custody.write(lambda last: taken(last, highest_seen=highest_seen, process=answer, reason=reason))

    async def not_taken(self) -> None:
        """Go on handing the machine over where it was not taken back after all; TAKEN may be being written still."""
        await self.custody.write(lambda last: last)  # which waits for a write under way
        await (self.taken() if self.record.state is State.TAKEN else self.recover())

    async def give_way(self, owner: SideView) -> None:
        """Retire this copy of a machine that an operator took elsewhere; nobody may be driving the attempt."""
        await self._past.taken_elsewhere(owner)

    async def taken(self) -> None:
        """Bring a machine that was taken back to its run state, and show the end."""
        await self._patience.insist(self._as_owed)
        text = "An operator took the machine back from its destination"
        self._account.show_end(AttemptFailed("taken", text, "Its destination retires its copy"), State.TAKEN)

    # how it ends otherwise

    async def _end(self, failure: MigrationError) -> None:
        account = self._account
        account.put(replace(account.now, failure=text_of(failure)))
        try:
            state = await self._patience.insist(lambda: self._settled(failure))
            self._decided.set()
            if state is State.RETIRED:  # another life of this agent came to that
                self._account.show_completed()
                return
            if state is not State.RELEASED:
                account.waiting(f"{state} is durable; brings the machine to the run state that it is owed")
                self._account.show_end(failure, await self._patience.insist(self._as_owed))
                return
            account.put(replace(account.now, failure=None))
            async with account.link() as link:
                await self._patience.insist(lambda: fence_off(self.custody))
                await self._past.hand_over(link, None)
        except Stale as error:
            self._no_say(error)

    def _no_say(self, error: Stale) -> None:
        _log.error("somebody else has the machine in hand", attempt=self.attempt, reason=error.message)
        self._account.waiting(f"this agent has no say any more: {error.message}")

    async def _settled(self, failure: MigrationError) -> State:
        account, machine = self._account, self.record.machine
        link = account.link if account.terms.control_address else None
        try:
            state = await settle(self.custody, link, self.key(), failure.message)
        except (Unresolved, Stale) as error:
            if error.code not in (CONTRADICTION, ROLLED_BACK):
                raise
            account.doubts.raise_(machine, CONTRADICTION, error.message)
            raise Unresolved(CONTRADICTION, error.message, error.hint) from None
        account.doubts.settle(machine, CONTRADICTION)
        return state

    async def _as_owed(self) -> State:
        async with self._account.alone():
            return (await bring_to_owed(self.custody)).state

    def _nothing_left_to_tell(self, last: Record, state: State) -> Record:
        if last.attempt != self.attempt or last.state is not state:
            return last
        return msgspec.structs.replace(last, policy="")
