"""One attempt at its source, from Begin to its end. The agent finishes or aborts it alone.

::

    begun --Start--> pre-copy --fits--> stopping --> verifying --READY--> releasing --> handing-over --> completed
      |                 |                  |             |
      '-----------------'------------------'-------------'-----> aborted (ABORTED durable, then the guest resumes)

Up to READY the work is one task that can be cancelled at any point; past it, nothing cancels. What an end needs is
repeated until it succeeds (source_agent.ending): a machine never stays stopped because one answer did not come.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

import msgspec

from source_agent.destination_link import DestinationLink
from source_agent.ending import settle, take_back, tell_to_discard
from source_agent.handing_over import fence_off, hand_over, release, retire, tell_retired, told_retired
from source_agent.insisting import insist
from source_agent.outcome import as_asked, ended, failure_of, text_of, unexpected
from source_agent.precopy import Precopy
from source_agent.progress import CANCELLABLE, ENDED, Outcome, Phase, Progress, ProgressBoard
from source_agent.rounds import Rounds
from source_agent.standstill import downtime_of
from source_agent.switchover import PagesDiffer, Ready, stop_and_make_ready
from source_agent.terms import Terms
from vm_migration.api.v1 import types_pb2
from vm_migration.errors import AttemptFailed, MigrationError, Refused, Stale
from vm_migration.handover.custody import Custody
from vm_migration.handover.departure import forced_pause_bound_ms, pause_bound_ms
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.link.channel import OpenChannel, open_channel
from vm_migration.link.tls import TlsFiles
from vm_migration.loop_clock import loop_ns
from vm_migration.telemetry import logs
from vm_migration.transfer.outgoing import OutgoingStream
from vmm.process.control import Description

_log: Final = logs.get(__name__)

_NEWS_SECONDS: Final = 1.0
BeforeHandoff = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class StartOrder:
    """Where the destination waits."""

    control_address: str
    bulk_address: str
    ticket: bytes


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an attempt needs of its agent; the hash rate is measured, in bytes per second."""

    tls: TlsFiles | None
    before_handoff: BeforeHandoff
    hash_bytes_per_s: float
    boot_id: str
    channels: OpenChannel = open_channel


class OutgoingAttempt:
    """Drives one attempt; `board` shows it."""

    def __init__(self, custody: Custody, terms: Terms, around: Surroundings) -> None:
        self.custody: Final = custody
        self.board: Final = ProgressBoard(Progress())
        self.attempt: Final = custody.record.attempt or ""
        self.terms = terms
        self.described: Description | None = None
        self._around: Final = around
        self._record = custody.record
        self._started_ns: Final = loop_ns()
        self._order: Final[asyncio.Future[StartOrder]] = asyncio.get_running_loop().create_future()
        self._until_ready: asyncio.Task[tuple[DestinationLink, Ready]] | None = None
        self._cancelled = False
        self._heard = False
        self._precopy: Precopy | None = None

    # the orchestrator's hands

    def start(self, order: StartOrder) -> None:
        """Begin the rounds; asked again, nothing changes."""
        if not self._order.done():
            self._order.set_result(order)

    def cancel(self) -> None:
        """End the attempt; asked again, nothing changes.

        Raises:
            Refused: It is past the point of no return, or completed.
        """
        phase = self._now.phase
        if self._cancelled or phase is Phase.ABORTED:
            return
        if phase not in CANCELLABLE:
            text = f"Attempt {self.attempt} is {phase}: the machine is its destination's"
            raise Refused("past-return", text, "Wait for its end")
        self._cancelled = True
        if self._until_ready is not None:
            self._until_ready.cancel()

    def force(self) -> None:
        """Switch over at the end of the round, whatever the standstill.

        Raises:
            Refused: No round is under way.
        """
        if self._precopy is None or self._now.phase is not Phase.PRE_COPY:
            raise Refused("not-in-rounds", f"Attempt {self.attempt} is {self._now.phase}", "Nothing to force")
        self._precopy.forced = True

    def tune(self, *, downtime_limit_ms: int, max_bandwidth_bytes_per_s: int) -> None:
        """Change limits of a running attempt; 0 leaves one as it is."""
        self.terms = msgspec.structs.replace(
            self.terms,
            downtime_limit_ms=downtime_limit_ms or self.terms.downtime_limit_ms,
            max_bandwidth_bytes_per_s=max_bandwidth_bytes_per_s or self.terms.max_bandwidth_bytes_per_s,
        )
        if self._precopy is not None:
            self._precopy.tune(self.terms)

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
                self._until_ready, self._precopy = None, None
            await self._end(failure)

    async def recover(self) -> None:
        """Bring an attempt of an earlier life of this agent to the end that the journals allow."""
        text = "The source agent was restarted during the attempt"
        await self._end(AttemptFailed("agent-restarted", text, "Begin a new attempt"))

    def show_outcome(self) -> None:
        """Show what the journal says of an attempt of an earlier life that is over."""
        record = self.record
        if record.state is State.RETIRED:
            self._put(replace(self._now, phase=Phase.COMPLETED, outcome=Outcome.COMPLETED, reason=""))
        else:
            failure = AttemptFailed("attempt-failed", record.reason or "Attempt failed", "Begin a new attempt")
            self._show_end(failure, record.state)

    async def tell(self) -> None:
        """Tell the destination how it ended, until it has heard; its address is journalled before a byte is sent."""
        state = self.record.state
        if not self.terms.control_address or state not in (State.ABORTED, State.LOST, State.RETIRED):
            return
        async with self._link() as link:
            if state is State.RETIRED and not self._heard:
                await tell_retired(link, self.key())
            elif state is not State.RETIRED:
                await tell_to_discard(link, self.key(), self.custody)
        with contextlib.suppress(Stale):  # somebody else has the journal by now; he may tell once more
            await self.custody.write(lambda last: self._nothing_left_to_tell(last, state))

    async def _readied(self, stack: AsyncExitStack) -> tuple[DestinationLink, Ready]:
        self._until_ready = asyncio.create_task(self._make_ready(stack), name=f"attempt {self.attempt}")
        if self._cancelled:
            self._until_ready.cancel()
        found = await self._until_ready
        if self._cancelled:  # the wish came after the task's last step, and before the release
            raise as_asked()
        return found

    async def _make_ready(self, stack: AsyncExitStack) -> tuple[DestinationLink, Ready]:
        order = await self._ordered()
        self.terms = msgspec.structs.replace(
            self.terms, control_address=order.control_address, bulk_address=order.bulk_address
        )
        terms_text = msgspec.json.encode(self.terms).decode()
        await self.custody.write(lambda record: msgspec.structs.replace(record, policy=terms_text))
        link = await stack.enter_async_context(self._link())
        bulks = await link.open_streams(order.ticket, self.terms.streams)
        streams = [OutgoingStream(UUID(self.attempt), ordinal) for ordinal in range(self.terms.streams)]
        machine = self.custody.port
        lanes = tuple(zip(streams, bulks, strict=True))
        ram = await machine.ram()
        stack.callback(ram.close)
        rounds = Rounds(machine, ram, link, lanes, self.key(), verify=self.terms.verify)
        self._precopy = Precopy(rounds, self.custody, self.board, self.terms, self._around.hash_bytes_per_s)
        self._put(replace(self._now, phase=Phase.PRE_COPY, reason="sends memory while the machine runs"))
        standstill_ms, forced = await self._precopy.run(self._elapsed_ms)
        return link, await self._stop(link, rounds, standstill_ms, forced=forced)

    async def _ordered(self) -> StartOrder:
        try:
            async with asyncio.timeout(self.terms.timeout_ms / 1000):
                return await self._order
        except TimeoutError:
            raise AttemptFailed("timeout", "Attempt was begun and never started", "Begin a new one") from None

    async def _stop(self, link: DestinationLink, rounds: Rounds, standstill_ms: float, *, forced: bool) -> Ready:
        await self._around.before_handoff()
        self._put(replace(self._now, phase=Phase.STOPPING, reason="stops the guest and sends what is left"))
        limit = self.terms.downtime_limit_ms
        bound_ms = forced_pause_bound_ms(round(standstill_ms)) if forced else pause_bound_ms(limit)
        stop = await self.custody.port.pause(for_attempt=True)
        try:
            async with asyncio.timeout(bound_ms / 1000):
                ready = await stop_and_make_ready(
                    self.custody,
                    link,
                    rounds,
                    self.key(),
                    stop,
                    bound_ms=bound_ms,
                    verify=self.terms.verify != "none",
                    verifying=self._verifying,
                )
        except TimeoutError:
            text = f"Destination was not ready within {bound_ms} ms of the pause"
            raise AttemptFailed("pause-bound", text, "Raise --downtime-limit") from None
        except PagesDiffer:
            self._put(replace(self._now, verified_by=rounds.verified_by))
            raise
        self._put(
            replace(
                self._now,
                rounds=(*self._now.rounds, ready.last_round),
                wire_bytes=rounds.wire_bytes,
                remaining_bytes=0,
                device_bytes=rounds.devices.total.data_bytes,
                device_left_bytes=0,
                verified_by=rounds.verified_by,
                pages_verified=ready.pages_verified,
                bulk_ms=(rounds.bulk_ended_ns - rounds.bulk_started_ns) / 1e6,
            )
        )
        return ready

    def _verifying(self) -> None:
        self._put(replace(self._now, phase=Phase.VERIFYING, reason="waits until the destination has verified"))

    async def _past_return(self, link: DestinationLink, ready: Ready) -> None:
        self._put(replace(self._now, phase=Phase.RELEASING, reason="gives the machine up"))
        await release(self.custody, self.attempt, ready.stop.pause)
        await self._hand_over(link, ready)

    async def _hand_over(self, link: DestinationLink, ready: Ready | None) -> None:
        record = self.custody.record
        self._put(replace(self._now, phase=Phase.HANDING_OVER, reason="hands the machine over"))
        handed = await hand_over(link, self.key(), record.pause, bytes.fromhex(record.secret), self._waiting)
        if handed is None:
            state = await insist(lambda: take_back(self.custody), self._waiting)
            text = "The destination lost its image before it took over"
            self._show_end(AttemptFailed("destination-lost", text, "The machine stays at its source; try again"), state)
            return
        standstill = None
        if ready is not None and record.was_running:
            standstill = downtime_of(ready, handed, self._around.boot_id)
        self._put(replace(self._now, downtime=standstill, total_ms=self._elapsed_ms(), reason="frees the paused copy"))
        await insist(lambda: retire(self.custody, self.key()), self._waiting)
        self._heard = await told_retired(link, self.key(), _NEWS_SECONDS)
        self._put(replace(self._now, phase=Phase.COMPLETED, outcome=Outcome.COMPLETED, reason=""))

    # how it ends otherwise

    async def _end(self, failure: MigrationError) -> None:
        self._put(replace(self._now, failure=text_of(failure)))
        try:
            state = await insist(
                lambda: self._settled(failure), lambda reason: self._waiting(f"not ended yet: {reason}")
            )
            if state is not State.RELEASED:
                self._show_end(failure, state)
                return
            self._put(replace(self._now, failure=None))
            async with self._link() as link:
                await fence_off(self.custody)
                await self._hand_over(link, None)
        except Stale as error:
            _log.error("somebody else has the machine in hand", attempt=self.attempt, reason=error.message)
            self._waiting(f"this agent has no say any more: {error.message}")

    async def _settled(self, failure: MigrationError) -> State:
        link = self._link if self.terms.control_address else None
        return await settle(self.custody, link, self.key(), failure.message)

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

    def _show_end(self, failure: MigrationError, state: State) -> None:
        self._put(replace(ended(self._now, failure, state), total_ms=self._elapsed_ms()))

    # what is shown

    @property
    def open(self) -> bool:
        """Whether the attempt has not come to an end."""
        return self._now.phase not in ENDED

    @property
    def record(self) -> Record:
        """The last record of the machine's journal that speaks of this attempt."""
        if self.custody.record.attempt == self.attempt:
            self._record = self.custody.record
        return self._record

    def key(self) -> types_pb2.AttemptKey:
        """Return the attempt's key, as the journal has it."""
        record = self.record
        return types_pb2.AttemptKey(machine=record.machine, attempt=self.attempt, epoch=record.epoch, term=record.term)

    @property
    def _now(self) -> Progress:
        return self.board.progress

    def _put(self, progress: Progress) -> None:
        self._record = self.record
        self.board.show(progress)

    def _waiting(self, reason: str) -> None:
        self._put(replace(self._now, reason=reason))

    def _link(self) -> DestinationLink:
        terms = self.terms
        return DestinationLink(
            host=self.record.peer,
            control=terms.control_address,
            bulk=terms.bulk_address,
            tls=self._around.tls,
            attempt=self.attempt,
            channels=self._around.channels,
        )

    def _elapsed_ms(self) -> float:
        return (loop_ns() - self._started_ns) / 1e6
