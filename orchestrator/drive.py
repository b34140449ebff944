"""Drives one attempt from its row in the store to its end. The order is handover.md's; the journals are the agents'.

::

    preflight -> Begin -> before_prepare -> Prepare -> Start -> watch -> owner, hooks          completed
        |          |            '------------'----------'-> Cancel at the source (ABORTED)
        '----------'-> refused; nothing was done                 '-> Discard at the destination, on that proof

The source agent runs the rounds and decides the switchover alone; from Start on this only watches, and passes a wish
to cancel on. Every call may be made twice, so that a driver which took over just goes on: it tells the source its term,
cancels an attempt whose driver died before it started, and watches one that runs. A wish to cancel ends whatever is
waited for. Nothing is concluded from silence: where the source does not know the attempt, both journals are asked
(orchestrator.verdict), and after `patience` seconds the outcome is `unresolved` and the row stays open.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

from orchestrator.attempt import (
    PAST_RETURN,
    Attempt,
    Fault,
    Notice,
    Outcome,
    Phase,
    blocked,
    fault_of,
    merged,
    resolved,
    with_report,
)
from orchestrator.driven_row import CancelAsked, DrivenRow, pause, stopped
from orchestrator.journals import PROOFS, end_in_journals
from orchestrator.policy import require_transport
from orchestrator.preflight import ask, with_findings
from orchestrator.retrying import DRIVER_GONE, may_retry, settled_destination, successor, wait_left
from orchestrator.store.store import TAKEN_OVER, Ownership
from orchestrator.surroundings import Surroundings
from vm_migration.api.v1 import destination_pb2, source_pb2, types_pb2
from vm_migration.errors import MigrationError, Refused, Stale, Unreachable
from vm_migration.telemetry import logs, traces

_Answer = TypeVar("_Answer")
WAITS: Final = "waits to be made ready there, behind others that are"
MADE_READY: Final = "is made ready there, and is sent when it is its turn"
_PROMPT_SECONDS: Final = 1.0
_DISCARD_PATIENCE: Final = 5.0
_NOT_STARTED: Final = frozenset({Phase.PREPARING, Phase.BEGUN})
_UNKNOWN: Final = "unknown-attempt"
_STALE_TERM: Final = "stale-term"


class Drive:
    """One attempt, claimed by this driver."""

    def __init__(self, attempt: Attempt, around: Surroundings) -> None:
        self._around = around
        self._agents = around.agents
        self._row = DrivenRow(attempt, around.store, around.clock, around.observe, around.claims)
        self._proof: destination_pb2.DiscardRequest | None = None
        self._late: tuple[Notice, ...] = ()
        self._owned_epoch = 0  # at the source, as it told last
        self.successor: Attempt | None = None
        """The attempt that tries again, where this one ended and is tried again."""

    @property
    def attempt(self) -> Attempt:
        """The attempt as it stands."""
        return self._row.attempt

    @property
    def past_return(self) -> bool:
        """Whether a cancel comes too late."""
        return self.attempt.phase in PAST_RETURN

    def request_cancel(self) -> None:
        """Cancel as soon as that can be done; past the point of no return nothing changes."""
        self._row.cancel.set()

    async def run(self) -> Attempt:
        """Drive to the end and return the attempt as it was written last.

        Raises:
            Stale: Somebody else has taken the attempt over.
        """
        logs.bind(machine=self.attempt.machine, attempt=self.attempt.attempt, epoch=self.attempt.epoch)
        subject = {"machine": self.attempt.machine, "attempt": self.attempt.attempt}
        with traces.span("migration", subject):
            async with self._row.kept():
                await self._to_an_end()
        return self.attempt

    async def _to_an_end(self) -> None:
        try:
            await self._steps()
        except Stale as error:
            if error.code == TAKEN_OVER:
                raise
            await self._unresolved(error)
        except MigrationError as error:
            await self._unresolved(error)

    async def _steps(self) -> None:
        if self.attempt.epoch and self.attempt.term > 1:
            await self._tell_term()
        if self.attempt.phase in _NOT_STARTED:
            await self._give_up_what_never_started()
        elif self.attempt.phase in {Phase.QUEUED, Phase.PREFLIGHT, Phase.BEGINNING}:
            begun = await self._opened()
            if begun is None:
                return
            await self._prepare_and_start(begun)
        await self._watch()
        await self._close()

    async def _tell_term(self) -> None:
        """Have the source refuse an earlier driver from now on, where the attempt is still open there."""
        request = source_pb2.TuneRequest(key=self.attempt.key())
        try:
            await self._insist(lambda: self._agents.tune(self.attempt.source, request))
        except Stale as error:
            if error.code == _STALE_TERM:
                raise
        except MigrationError as error:
            if isinstance(error, Unreachable):
                raise

    # before the start

    async def _opened(self) -> source_pb2.BeginResponse | None:
        if self.attempt.phase != Phase.BEGINNING:
            try:
                await self._wait_to_retry()
                if not await self._preflight():
                    return None
            except CancelAsked:
                cancelled = self.attempt.to(Phase.ABORTED, Outcome.CANCELLED, reason="cancelled before it began")
                await self._row.write(cancelled)
                return None
        return await self._begin()

    async def _wait_to_retry(self) -> None:
        """Wait until a retry may begin, and choose where it goes."""
        retry = self.attempt.retry
        if seconds := wait_left(retry.not_before, self._around.clock()):
            await self._row.unless_cancelled(asyncio.sleep(seconds))
        if retry.choose:
            with contextlib.suppress(MigrationError):  # preflight asks again, and says it
                settling = settled_destination(self._around, self.attempt)
                chosen = await self._row.unless_cancelled(settling)
                await self._row.write(replace(chosen, reason=f"tries {chosen.destination}"))

    async def _preflight(self) -> bool:
        await self._row.write(self.attempt.to(Phase.PREFLIGHT, reason=_asking(self.attempt)))
        attempt = self.attempt
        machine = types_pb2.MachineStatus(machine=attempt.machine, name=attempt.name, host=attempt.source)
        try:
            terms = self._around.terms(attempt)
            asking = ask(self._agents, machine, attempt.destination, terms, measure_ms=attempt.asked.measure_ms)
            found = await self._row.unless_cancelled(asking)
        except MigrationError as error:
            await self._refuse(fault_of(error))
            return False
        await self._row.write(with_findings(attempt, found))
        if found.blockers:
            await self._refuse(blocked(attempt, found.blockers))
        elif self._row.cancel.is_set():
            raise CancelAsked
        return found.passes

    async def _begin(self) -> source_pb2.BeginResponse | None:
        await self._row.write(self.attempt.to(Phase.BEGINNING, reason=f"has {self.attempt.source} open the attempt"))
        attempt = self.attempt
        request = source_pb2.BeginRequest(
            key=attempt.key(), destination=attempt.destination, policy=self._around.terms(attempt).message()
        )
        try:
            begun = await self._insist(lambda: self._agents.begin(attempt.source, request))
        except Unreachable:
            raise
        except MigrationError as error:
            await self._refuse(fault_of(error))
            return None
        began = replace(self.attempt.to(Phase.PREPARING, reason="runs the site's hooks"), epoch=begun.key.epoch)
        logs.bind(machine=began.machine, attempt=began.attempt, epoch=began.epoch)
        await self._row.write(began)
        return begun

    async def _prepare_and_start(self, begun: source_pb2.BeginResponse) -> None:
        attempt = self.attempt
        request = destination_pb2.PrepareRequest(
            key=attempt.key(),
            source=begun.source,
            secret_hash=begun.secret_hash,
            requirements=begun.requirements,
            streams=attempt.policy.streams,
            verify=attempt.policy.message().verify,
            transport=attempt.policy.transport,
        )
        try:
            await self._row.unless_cancelled(self._around.hooks.before_prepare(attempt))
            prepared = await self._prepared(request)
            await self._row.write(replace(self.attempt, prepare_ms=prepared.prepare_ms, reason=MADE_READY))
            require_transport(attempt.policy, prepared.features, attempt.destination)
            await self._row.unless_cancelled(self._around.turn(self.attempt))
            start = source_pb2.StartRequest(
                key=attempt.key(),
                control_address=prepared.control_address,
                bulk_address=prepared.bulk_address,
                ticket=prepared.ticket,
            )
            report = await self._insist(lambda: self._row.unless_cancelled(self._agents.start(attempt.source, start)))
        except CancelAsked:
            await self._abort(None)
        except MigrationError as error:
            await self._abort(fault_of(error))
        else:
            await self._take(report)

    async def _prepared(self, request: destination_pb2.PrepareRequest) -> destination_pb2.PrepareResponse:
        attempt = self.attempt
        with self._around.preparing(attempt) as may:
            if not may.is_set():
                await self._row.say(WAITS)
                await self._row.unless_cancelled(may.wait())
            await self._row.say(f"has {attempt.destination} make the machine's memory ready")
            return await self._row.unless_cancelled(self._agents.prepare(attempt.destination, request))

    async def _give_up_what_never_started(self) -> None:
        report = await self._insist(lambda: self._agents.get_attempt(self.attempt.source, self.attempt.key()))
        await self._take(report)
        if not self.attempt.ended and self.attempt.phase in _NOT_STARTED:
            hint = "Migrate again; the machine runs on its source"
            gone = Fault(DRIVER_GONE, "The driver of this attempt went away before it started", hint)
            await self._abort(None if self._row.cancel.is_set() else gone)

    async def _abort(self, fault: Fault | None) -> None:
        """Have the source write ABORTED; the outcome is `failed` with a fault and `cancelled` without."""
        if fault is not None:
            await self._row.write(replace(self.attempt, error=fault))
        attempt = self.attempt
        try:
            report = await self._insist(lambda: self._agents.cancel(attempt.source, attempt.key()))
        except Refused as error:
            if isinstance(error, Unreachable):
                raise
            await self._row.say(error.message)  # past return, or over: the watch tells
            return
        await self._take(report)

    # from the start on

    async def _watch(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            canceller = asyncio.create_task(self._pass_cancel_on(), name=f"canceller of {self.attempt.attempt}")
            stack.push_async_callback(stopped, canceller)
            await self._follow()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        heard, failures = loop.time(), 0
        while not self.attempt.ended:
            try:
                async with contextlib.aclosing(self._reports()) as reports:
                    async for report in reports:
                        heard, failures = loop.time(), 0
                        await self._take(report)
                        if self.attempt.ended:
                            return
                await self._take(await self._agents.get_attempt(self.attempt.source, self.attempt.key()))
            except Unreachable as error:
                if loop.time() - heard > self._around.patience:
                    raise
                if not failures:
                    await self._row.say(f"asks again: {error.message}")
            await pause(failures)
            failures += 1

    async def _reports(self) -> AsyncGenerator[source_pb2.AttemptReport, None]:
        async for report in self._agents.watch(self.attempt.source, self.attempt.key()):
            yield report

    async def _pass_cancel_on(self) -> None:
        await self._row.cancel.wait()
        attempt = self.attempt
        if attempt.ended or self.past_return:
            return
        try:
            await self._insist(lambda: self._agents.cancel(attempt.source, attempt.key()), quiet=True)
        except MigrationError as error:  # the watch tells how it ends
            self._late = (Notice("cancel-refused", f"The cancel came too late: {error.message}"),)

    async def _take(self, report: source_pb2.AttemptReport) -> None:
        """Note what the source says; an end is written only by `_close`, with everything that belongs to it."""
        self._owned_epoch = report.owned_epoch or self._owned_epoch
        after = with_report(resolved(self.attempt), report)
        if after.outcome == Outcome.CANCELLED and self.attempt.error is not None:
            after = replace(after, outcome=Outcome.FAILED)  # our own abort, not anybody's wish
        if report.state in PROOFS:
            self._proof = destination_pb2.DiscardRequest(
                key=after.key(), proof_state=report.state, proof_record=report.record
            )
        if after.ended:
            self._row.attempt = after
        else:
            await self._row.take_note(after)

    async def _close(self) -> None:
        """Write the end. The destination is told first, where it listens; who is silent keeps nobody waiting."""
        attempt = self.attempt
        if attempt.phase == Phase.COMPLETED:
            # What is updated stays its host's, at an epoch that only this one knows: in mode exec the one that it had.
            epoch = self._owned_epoch if attempt.asked.update and self._owned_epoch else attempt.epoch
            owner = Ownership(attempt.machine, attempt.name, attempt.destination, epoch)
            await self._row.write(replace(attempt, warnings=merged(attempt.warnings, self._late)), owner=owner)
            return
        told = await self._discarded(_PROMPT_SECONDS) is None
        await self._end(attempt)
        warning = None if told else await self._discarded(_DISCARD_PATIENCE)
        later = await self._around.hooks.after_abort(self.attempt)
        if warning is not None:
            later = (warning, *later)
        if later:
            await self._row.write(replace(self.attempt, warnings=merged(self.attempt.warnings, later)))

    async def _discarded(self, patience: float) -> Notice | None:
        """Have the destination give up what arrived; where it did not answer, say so."""
        attempt, proof = self.attempt, self._proof
        if proof is None:
            return None
        try:
            async with asyncio.timeout(patience):
                await self._insist(lambda: self._agents.discard(attempt.destination, proof), quiet=True)
        except TimeoutError:
            why = f"it did not answer within {patience:g} s"
        except MigrationError as error:
            if error.code == _UNKNOWN:  # nothing ever arrived there
                return None
            why = error.message
        else:
            return None
        return Notice("discard-pending", f"{attempt.destination} has not discarded the attempt: {why}")

    async def _unresolved(self, error: MigrationError) -> None:
        """The source is silent or knows nothing: the journals may know that it is over; otherwise nobody does."""
        if self.attempt.ended:  # the agents have told the end: it was the store that failed
            raise error
        attempt = resolved(self.attempt)
        ended = await end_in_journals(self._agents, attempt, error)
        if ended is not None:
            self._row.attempt, self._proof = ended.attempt, ended.proof or self._proof
            self._owned_epoch = ended.owned_epoch or self._owned_epoch
            await self._close()
            return
        fault = Fault(error.code, error.message, "When its agents answer again: viaduct recover")
        await self._row.write(replace(attempt, outcome=Outcome.UNRESOLVED, reason=error.message, error=fault))
        await self._row.let_go()

    # the row

    async def _refuse(self, fault: Fault) -> None:
        await self._end(replace(self.attempt.to(Phase.REFUSED, Outcome.REFUSED), error=fault))

    async def _end(self, attempt: Attempt) -> None:
        """Write an end other than completion, and with it the attempt that tries again."""
        around, now = self._around, self._around.clock()
        if may_retry(attempt, now) and not self._row.cancel.is_set():
            self.successor = successor(attempt, now, around.draw_identifier(), around.chance())
            attempt = replace(attempt, retry=replace(attempt.retry, next=self.successor.attempt))
        await self._row.write(attempt, successor=self.successor)

    async def _insist(self, ask_once: Callable[[], Awaitable[_Answer]], *, quiet: bool = False) -> _Answer:
        return await self._row.insist(ask_once, self._around.patience, quiet=quiet)


def _asking(attempt: Attempt) -> str:
    measured = attempt.asked.measure_ms
    return f"asks both hosts, and measures for {measured / 1000:g} s what it writes" if measured else "asks both hosts"
