"""The daemon's gRPC service: the queue and the store, in the wire's words."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator

import grpc.aio

from orchestrator.admission import Order
from orchestrator.attempt import Asked
from orchestrator.leading import Leading
from orchestrator.policy import MEASURE_MS, policy_from
from orchestrator.record import event_message, failure_message, record_of
from orchestrator.service import AttemptQueue
from orchestrator.store.store import Store
from vm_migration.api.v1 import orchestrator_pb2 as api
from vm_migration.api.v1.orchestrator_pb2_grpc import OrchestratorServicer
from vm_migration.errors import InvalidInput

_Context = grpc.aio.ServicerContext[object, object]
NAME = "vm_migration.api.v1.Orchestrator"


class OrchestratorService(OrchestratorServicer):
    """Answers people and their tools. What a method raises crosses the wire whole (vm_migration.link.status)."""

    def __init__(self, leading: Leading, store: Store) -> None:
        self._leading = leading
        self._store = store

    @property
    def _queue(self) -> AttemptQueue:
        """The queue, of whoever leads; one that stands by has none, and says so."""
        return self._leading.queue

    async def SubmitMigration(self, request: api.SubmitMigrationRequest, context: object) -> api.AttemptRecord:
        """Check and queue."""
        del context
        try:
            attempt_id = str(uuid.UUID(request.attempt))
        except ValueError:
            raise InvalidInput("bad-attempt", "The attempt is not named by a UUID", "Draw one") from None
        measure_ms = request.measure_ms if request.HasField("measure_ms") else MEASURE_MS
        order = Order(
            machine=request.machine,
            destination=request.destination,
            policy=policy_from(request.policy),
            priority=request.priority,
            attempt=attempt_id,
            retries=request.retries,
            asked=Asked(measure_ms, by_host=not request.policy.transport),
        )
        return record_of(await self._queue.submit(order))

    async def ListAttempts(self, request: api.ListAttemptsRequest, context: object) -> api.ListAttemptsResponse:
        """Return open attempts, or all."""
        del context
        found = await self._queue.attempts(everything=request.all)
        return api.ListAttemptsResponse(
            attempts=[record_of(row) for row in found.attempts],
            silent=[api.SilentHost(host=host, error=failure_message(error)) for host, error in found.silent.items()],
        )

    async def GetAttempt(self, request: api.AttemptName, context: object) -> api.AttemptRecord:
        """Return one attempt with its events."""
        del context
        row = await self._queue.find(request.attempt)
        record = record_of(row)
        events = await asyncio.to_thread(self._store.events, row.attempt)
        record.events.extend(event_message(event) for event in events)
        return record

    async def WatchAttempt(self, request: api.AttemptName, context: object) -> AsyncGenerator[api.AttemptRecord, None]:
        """Yield an attempt until it ends."""
        del context
        row = await self._queue.find(request.attempt)
        known = await asyncio.to_thread(self._store.has, row.attempt)
        changes = self._queue.watch(row.attempt) if known else self._queue.watch_elsewhere(row)
        async with contextlib.aclosing(changes):
            async for change in changes:
                yield record_of(change)

    async def CancelAttempt(self, request: api.AttemptName, context: object) -> api.AttemptRecord:
        """Cancel one attempt."""
        del context
        row = await self._queue.find(request.attempt)
        return record_of(await self._queue.cancel(row))

    async def ForceAttempt(self, request: api.AttemptName, context: object) -> api.AttemptRecord:
        """Switch over at once."""
        del context
        row = await self._queue.find(request.attempt)
        return record_of(await self._queue.force(row))

    async def TuneAttempt(self, request: api.TuneAttemptRequest, context: object) -> api.AttemptRecord:
        """Change the limits of a running attempt."""
        del context
        row = await self._queue.find(request.attempt)
        tuned = await self._queue.tune(
            row,
            downtime_limit_ms=request.downtime_limit_ms,
            max_bandwidth_bytes_per_s=request.max_bandwidth_bytes_per_s,
        )
        return record_of(tuned)
