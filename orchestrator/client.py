"""The site's orchestrator daemons, asked over gRPC."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final

from orchestrator.admission import Order
from orchestrator.attempt import Attempt, Event, Fault, Outcome
from orchestrator.desk import CANCELLING, CANCELLING_STILL, Observer, follow, waiting_for_the_end
from orchestrator.doors import Doors
from orchestrator.evacuation.client import RemoteEvacuationDesk
from orchestrator.learning import Listing
from orchestrator.record import attempt_of, events_of
from orchestrator.watched import watched
from vm_migration.api.v1 import orchestrator_pb2 as api
from vm_migration.errors import MigrationError, Unreachable

PEER: Final = "orchestrator"  # the name in the daemon's certificate
_ASK_SECONDS: Final = 10.0
_SUBMIT_SECONDS: Final = 60.0  # it asks every host


class RemoteDesk:
    """The daemon as a desk."""

    def __init__(self, doors: Doors) -> None:
        """Speak through open doors, to the one that leads."""
        self._doors = doors
        self.evacuations = RemoteEvacuationDesk(doors)
        self._current: dict[str, Attempt] = {}
        """What `migrate` watches, by the attempts that were ordered."""
        self._interrupted = False

    async def migrate(self, order: Order, observe: Observer) -> Attempt:
        """Submit and watch to the end."""
        current = await self.submit(order)
        observe(current)
        try:
            while True:
                self._current[order.attempt] = current
                if self._interrupted:
                    await self.interrupt()
                last = await self._followed(current, observe)
                if not last.retry.next:
                    return last
                current = await self.attempt(last.retry.next)
        finally:
            self._current.pop(order.attempt, None)

    async def _followed(self, attempt: Attempt, observe: Observer) -> Attempt:
        """Follow an attempt to its end; it was taken, and goes on, whether or not the daemon can be heard."""
        try:
            return await follow(self.watch(attempt), observe) or attempt
        except Unreachable as error:
            fault = Fault("orchestrator-silent", error.message, f"When it is back: viaduct watch {attempt.attempt}")
            return replace(attempt, outcome=Outcome.UNRESOLVED, error=fault)

    async def submit(self, order: Order) -> Attempt:
        """Enter an order."""
        if order.asked.update:
            update = api.SubmitUpdateRequest(attempt=order.attempt, machine=order.machine, mode=order.asked.update)
            return attempt_of(await self._doors.ask(lambda stub: stub.SubmitUpdate, update, deadline=_SUBMIT_SECONDS))
        policy = order.policy.message()
        if order.asked.by_host:
            policy.transport = ""
        request = api.SubmitMigrationRequest(
            attempt=order.attempt,
            machine=order.machine,
            destination=order.destination,
            policy=policy,
            priority=order.priority,
            retries=order.retries,
            measure_ms=order.asked.measure_ms,
        )
        return attempt_of(await self._doors.ask(lambda stub: stub.SubmitMigration, request, deadline=_SUBMIT_SECONDS))

    async def interrupt(self) -> str:
        """Have the daemon cancel what `migrate` watches; past the point of no return it goes on."""
        again, self._interrupted = self._interrupted, True
        if not self._current:
            return "Cancelling as soon as the orchestrator has taken the order"
        told = [await self._interrupt(attempt) for attempt in list(self._current.values())]
        return next((words for words in told if words), CANCELLING_STILL if again else CANCELLING)

    async def _interrupt(self, attempt: Attempt) -> str:
        """Cancel one; return why it is not, for people."""
        try:
            await self.cancel(attempt)
        except Unreachable as error:
            return f"Not cancelled yet: {error.message}"
        except MigrationError as error:
            late = error.code == "past-return"
            return waiting_for_the_end(attempt.attempt) if late else f"Not cancelled: {error.message}"
        return ""

    async def attempts(self, *, everything: bool, hosts: bool = True) -> Listing:
        """Return open attempts, or all: those of the daemon's store, and with `hosts` those that only a host knows."""
        request = api.ListAttemptsRequest(all=everything, stored_only=not hosts)
        answer = await self._doors.ask(lambda stub: stub.ListAttempts, request, deadline=2 * _ASK_SECONDS)
        silent = {one.host: Unreachable(one.error.code, one.error.message, one.error.hint) for one in answer.silent}
        return Listing(tuple(attempt_of(record) for record in answer.attempts), silent)

    async def attempt(self, start: str) -> Attempt:
        """Return the attempt whose UUID starts so."""
        return attempt_of(await self._record(start))

    async def events(self, attempt: Attempt) -> tuple[Event, ...]:
        """Return its transitions."""
        return events_of(await self._record(attempt.attempt))

    async def watch(self, attempt: Attempt) -> AsyncGenerator[Attempt, None]:
        """Yield it at each change until it ends; a lost connection is made again, for as long as this is patient."""
        request, last = api.AttemptName(attempt=attempt.attempt), attempt
        told = watched(self._doors, lambda stub: stub.WatchAttempt, request)
        async with contextlib.aclosing(told):
            async for one in told:
                if isinstance(one, Unreachable):
                    yield replace(last, reason=f"asks again: {one.message}")
                else:
                    last = attempt_of(one)
                    yield last

    async def cancel(self, attempt: Attempt) -> Attempt:
        """Cancel it."""
        request = api.AttemptName(attempt=attempt.attempt)
        return attempt_of(await self._doors.ask(lambda stub: stub.CancelAttempt, request, deadline=2 * _ASK_SECONDS))

    async def force(self, attempt: Attempt) -> Attempt:
        """Have it switch over at once."""
        request = api.AttemptName(attempt=attempt.attempt)
        return attempt_of(await self._doors.ask(lambda stub: stub.ForceAttempt, request, deadline=2 * _ASK_SECONDS))

    async def tune(self, attempt: Attempt, *, downtime_limit_ms: int, max_bandwidth_bytes_per_s: int) -> Attempt:
        """Change its limits."""
        request = api.TuneAttemptRequest(
            attempt=attempt.attempt,
            downtime_limit_ms=downtime_limit_ms,
            max_bandwidth_bytes_per_s=max_bandwidth_bytes_per_s,
        )
        return attempt_of(await self._doors.ask(lambda stub: stub.TuneAttempt, request, deadline=2 * _ASK_SECONDS))

    async def _record(self, start: str) -> api.AttemptRecord:
        request = api.AttemptName(attempt=start)
        return await self._doors.ask(lambda stub: stub.GetAttempt, request, deadline=_ASK_SECONDS)
