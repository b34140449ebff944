"""Drives one attempt from its row in the store to its end. The order is handover.md's; the journals are the agents'.

::

    preflight -> Begin -> before_prepare -> Prepare -> Start -> watch -> owner, hooks          completed
        |          |            '------------'----------'-> Cancel at the source (ABORTED)
        '----------'-> refused; nothing was done                 '-> Discard at the destination, on that proof

The source agent runs the rounds and decides the switchover alone; from Start on this only watches, and passes a wish
to cancel on. Every call may be made twice, so that a driver which took over just goes on: an attempt whose driver died
before it started is cancelled, one that runs is watched. Nothing is concluded from silence: after `patience` seconds
the outcome is `unresolved` and the row stays open.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from orchestrator.agents import Agents
from orchestrator.attempt import PAST_RETURN, Attempt, Fault, Notice, Outcome, Phase, merged, with_report
from orchestrator.preflight import ask
from orchestrator.store.claim import HEARTBEAT_SECONDS
from orchestrator.store.store import TAKEN_OVER, Ownership, Store
from vm_migration.api.v1 import destination_pb2, source_pb2, types_pb2
from vm_migration.errors import MigrationError, Refused, Stale, Unreachable
from vm_migration.link.boundary import innermost

_Answer = TypeVar("_Answer")
_BACKOFF: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_DISCARD_PATIENCE: Final = 5.0
_PROOFS: Final = frozenset({"ABORTED", "LOST"})
_NOT_STARTED: Final = frozenset({Phase.PREPARING, Phase.BEGUN})


class Hooks(Protocol):
    """What a site has run around a migration."""

    async def before_prepare(self, attempt: Attempt) -> None:
        """Run what must succeed; raises MigrationError to end the attempt."""

    async def after_abort(self, attempt: Attempt) -> tuple[Notice, ...]:
        """Run what follows an aborted attempt; what failed is returned."""


def ignore(_attempt: Attempt) -> None:
    """Observe nothing."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a driver works with. `clock` returns seconds since 1970, `patience` is in seconds."""

    store: Store
    agents: Agents
    hooks: Hooks
    driver: str
    clock: Callable[[], float]
    observe: Callable[[Attempt], None] = ignore
    patience: float = 60.0


class _CancelAsked(Exception):
    """The wish to cancel arrived while a call was under way."""


class Drive:
    """One attempt, claimed by this driver."""

    def __init__(self, attempt: Attempt, around: Surroundings) -> None:
        self.attempt = attempt
        self._around = around
        self._agents = around.agents
        self._cancel = asyncio.Event()
        if attempt.cancel_requested:
            self._cancel.set()

    @property
    def past_return(self) -> bool:
        """Whether a cancel comes too late."""
        return self.attempt.phase in PAST_RETURN

    def request_cancel(self) -> None:
        """Cancel as soon as that can be done; past the point of no return nothing changes."""
        self._cancel.set()

    async def run(self) -> Attempt:
        """Drive to the end and return the attempt as it was written last.

        Raises:
            Stale: Somebody else has taken the attempt over.
        """
        try:
            async with asyncio.TaskGroup() as group:
                beat = group.create_task(self._beat(), name=f"heartbeat of {self.attempt.attempt}")
                await self._to_an_end()
                beat.cancel()
        except* MigrationError as errors:
            raise innermost(errors) from None
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
        left_behind = self.attempt.phase in _NOT_STARTED
        if self.attempt.phase in {Phase.QUEUED, Phase.PREFLIGHT} and not await self._preflight():
            return
        if self.attempt.phase in {Phase.PREFLIGHT, Phase.BEGINNING, Phase.PREPARING}:
            begun = await self._begin()
            if begun is None:
                return
            if not left_behind:
                await self._prepare_and_start(begun)
        if left_behind:
            await self._give_up_what_never_started()
        await self._watch()
        await self._close()

    # before the start

    async def _preflight(self) -> bool:
        await self._write(self.attempt.to(Phase.PREFLIGHT))
        attempt = self.attempt
        machine = types_pb2.MachineStatus(machine=attempt.machine, name=attempt.name, host=attempt.source)
        try:
            found = await ask(self._agents, machine, attempt.destination, attempt.policy)
        except MigrationError as error:
            await self._refuse(_fault(error))
            return False
        await self._write(
            replace(
                attempt,
                blockers=found.blockers,
                warnings=merged(attempt.warnings, found.warnings),
                expected=found.expected,
                shared_clock=found.shared_clock,
            )
        )
        if found.blockers:
            await self._refuse(blocked(found.blockers))
        return found.passes

    async def _begin(self) -> source_pb2.BeginResponse | None:
        if self._cancel.is_set() and not self.attempt.epoch and self.attempt.phase != Phase.BEGINNING:
            await self._write(self.attempt.to(Phase.ABORTED, Outcome.CANCELLED, reason="cancelled before it began"))
            return None
        if self.attempt.phase != Phase.PREPARING:
            await self._write(self.attempt.to(Phase.BEGINNING))
        attempt = self.attempt
        request = source_pb2.BeginRequest(
            key=attempt.key(), destination=attempt.destination, policy=attempt.policy.message()
        )
        try:
            begun = await self._insist(lambda: self._agents.begin(attempt.source, request))
        except Unreachable:
            raise
        except MigrationError as error:
            await self._refuse(_fault(error))
            return None
        await self._write(replace(attempt.to(Phase.PREPARING), epoch=begun.key.epoch))
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
        )
        try:
            await self._around.hooks.before_prepare(attempt)
            prepared = await self._unless_cancelled(self._agents.prepare(attempt.destination, request))
            await self._write(replace(self.attempt, prepare_ms=prepared.prepare_ms))
            start = source_pb2.StartRequest(
                key=attempt.key(),
                control_address=prepared.control_address,
                bulk_address=prepared.bulk_address,
                ticket=prepared.ticket,
            )
            report = await self._insist(lambda: self._agents.start(attempt.source, start))
        except _CancelAsked:
            await self._abort(None)
        except MigrationError as error:
            await self._abort(_fault(error))
        else:
            await self._take(report)

    async def _give_up_what_never_started(self) -> None:
        report = await self._insist(lambda: self._agents.get_attempt(self.attempt.source, self.attempt.key()))
        await self._take(report)
        if not self.attempt.ended and self.attempt.phase in _NOT_STARTED:
            hint = "Migrate again; the machine runs on its source"
            await self._abort(Fault("driver-gone", "The driver of this attempt went away before it started", hint))

    async def _abort(self, fault: Fault | None) -> None:
        """Have the source write ABORTED; the outcome is `failed` with a fault and `cancelled` without."""
        if fault is not None:
            await self._write(replace(self.attempt, error=fault))
        attempt = self.attempt
        try:
            report = await self._insist(lambda: self._agents.cancel(attempt.source, attempt.key()))
        except Refused as error:
            if isinstance(error, Unreachable):
                raise
            await self._write(replace(self.attempt, reason=error.message))  # past return, or over: the watch tells
            return
        await self._take(report)

    # from the start on

    async def _watch(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            canceller = asyncio.create_task(self._pass_cancel_on(), name=f"canceller of {self.attempt.attempt}")
            stack.push_async_callback(_stopped, canceller)
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
                    await self._write(replace(self.attempt, reason=error.message))
            await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
            failures += 1

    async def _reports(self) -> AsyncGenerator[source_pb2.AttemptReport, None]:
        async for report in self._agents.watch(self.attempt.source, self.attempt.key()):
            yield report

    async def _pass_cancel_on(self) -> None:
        await self._cancel.wait()
        attempt = self.attempt
        if attempt.ended or self.past_return:
            return
        with contextlib.suppress(MigrationError):  # refused: too late, and the watch tells how it ends
            await self._insist(lambda: self._agents.cancel(attempt.source, attempt.key()))

    async def _take(self, report: source_pb2.AttemptReport) -> None:
        """Note what the source says; an end is written only by `_close`, with everything that belongs to it."""
        after = with_report(self.attempt, report)
        if after.outcome == Outcome.CANCELLED and self.attempt.error is not None:
            after = replace(after, outcome=Outcome.FAILED)  # our own abort, not anybody's wish
        if after.ended:
            self.attempt = after
        else:
            await self._write(after)

    async def _close(self) -> None:
        attempt, owner = self.attempt, None
        if attempt.phase == Phase.COMPLETED:
            owner = Ownership(attempt.machine, attempt.name, attempt.destination, attempt.epoch)
        else:
            attempt = replace(attempt, warnings=merged(attempt.warnings, await self._discard(attempt)))
        await self._write(attempt, owner=owner)
        if attempt.phase == Phase.COMPLETED:
            return
        failed = await self._around.hooks.after_abort(self.attempt)
        if failed:
            await self._write(replace(self.attempt, warnings=merged(self.attempt.warnings, failed)))

    async def _discard(self, attempt: Attempt) -> tuple[Notice, ...]:
        report = attempt.report
        if report is None or report.state not in _PROOFS:
            return ()
        request = destination_pb2.DiscardRequest(
            key=attempt.key(), proof_state=report.state, proof_record=report.record
        )
        try:
            await self._insist(lambda: self._agents.discard(attempt.destination, request), patience=_DISCARD_PATIENCE)
        except MigrationError as error:
            return (Notice("discard-pending", f"{attempt.destination} has not discarded the attempt: {error.message}"),)
        return ()

    async def _unresolved(self, error: MigrationError) -> None:
        """The source is silent or knows nothing: the destination may know that it is over; otherwise nobody does."""
        attempt = self.attempt
        with contextlib.suppress(MigrationError):
            incoming = await self._agents.describe_incoming(attempt.destination, attempt.key())
            if attempt.epoch and (incoming.state, incoming.highest_epoch) == ("ACTIVE", attempt.epoch):
                silent = Notice("source-silent", f"The source has not been heard since: {error.message}")
                warnings = merged(attempt.warnings, (silent,))
                self.attempt = replace(attempt.to(Phase.COMPLETED, Outcome.COMPLETED), warnings=warnings)
                await self._close()
                return
        fault = Fault(error.code, error.message, "When its agents answer again: viaduct recover")
        await self._write(replace(attempt, outcome=Outcome.UNRESOLVED, error=fault))
        await asyncio.to_thread(self._around.store.let_go, self.attempt)

    # the row

    async def _refuse(self, fault: Fault) -> None:
        await self._write(replace(self.attempt.to(Phase.REFUSED, Outcome.REFUSED), error=fault))

    async def _write(self, attempt: Attempt, *, owner: Ownership | None = None) -> None:
        store = self._around.store
        self.attempt = await asyncio.to_thread(store.save, attempt, self._around.clock(), owner=owner)
        self._around.observe(self.attempt)

    async def _beat(self) -> None:
        store = self._around.store
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            row = await asyncio.to_thread(store.heartbeat, self.attempt, self._around.clock())
            if row.cancel_requested:
                self._cancel.set()

    async def _insist(self, ask_once: Callable[[], Awaitable[_Answer]], patience: float | None = None) -> _Answer:
        """Repeat a call that may be made twice while nobody answers."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (self._around.patience if patience is None else patience)
        failures = 0
        while True:
            try:
                return await ask_once()
            except Unreachable:
                if loop.time() > until:
                    raise
            await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
            failures += 1

    async def _unless_cancelled(self, calling: Coroutine[object, object, _Answer]) -> _Answer:
        call_task = asyncio.create_task(calling, name=f"call for {self.attempt.attempt}")
        wish = asyncio.create_task(self._cancel.wait(), name=f"wish for {self.attempt.attempt}")
        try:
            await asyncio.wait({call_task, wish}, return_when=asyncio.FIRST_COMPLETED)
            if not call_task.done():
                raise _CancelAsked
            return await call_task
        finally:
            await _stopped(wish)
            await _stopped(call_task)


def blocked(blockers: tuple[Notice, ...]) -> Fault:
    """Return the fault of an attempt that blockers refuse: the first one's code, everyone's words."""
    return Fault(blockers[0].code, "; ".join(one.message for one in blockers), "See all of it: viaduct preflight")


def _fault(error: MigrationError) -> Fault:
    return Fault(error.code, error.message, error.hint)


async def _stopped(task: "asyncio.Task[_Answer]") -> None:
    task.cancel()
    await asyncio.wait({task})
