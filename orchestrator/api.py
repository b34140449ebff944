"""The daemon's gRPC service: the queue and the store, in the wire's words."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator

import grpc.aio

from orchestrator.admission import Order
from orchestrator.attempt import Asked
from orchestrator.evacuation.record import order_of
from orchestrator.evacuation.record import record_of as evacuation_record
from orchestrator.leading import Leading
from orchestrator.policy import MEASURE_MS, policy_from
from orchestrator.record import event_message, failure_message, record_of
from orchestrator.service import AttemptQueue
from orchestrator.store.store import Store
from orchestrator.watchers import Watchers, watcher_of
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
        self._watchers = Watchers()

    @property
    def _queue(self) -> AttemptQueue:
        """The queue, of whoever leads; one that stands by has none, and says so."""
        return self._leading.queue

    async def SubmitMigration(self, request: api.SubmitMigrationRequest, context: object) -> api.AttemptRecord:
        """Check and queue."""
        del context
        measure_ms = request.measure_ms if request.HasField("measure_ms") else MEASURE_MS
        order = Order(
            machine=request.machine,
            destination=request.destination,
            policy=policy_from(request.policy),
            priority=request.priority,
            attempt=_identifier(request.attempt),
            retries=request.retries,
            asked=Asked(measure_ms, by_host=not request.policy.transport),
        )
        return record_of(await self._queue.submit(order))

    async def SubmitUpdate(self, request: api.SubmitUpdateRequest, context: object) -> api.AttemptRecord:
        """Check and queue."""
        del context
        if not request.mode:
            raise InvalidInput("invalid-request", "The update names no mode", "Name one: transfer")
        asked = Asked(update=request.mode)
        order = Order(machine=request.machine, destination="", attempt=_identifier(request.attempt), asked=asked)
        return record_of(await self._queue.submit(order))

    async def ListAttempts(self, request: api.ListAttemptsRequest, context: object) -> api.ListAttemptsResponse:
        """Return open attempts, or all."""
        del context
        found = await self._queue.attempts(everything=request.all, hosts=not request.stored_only)
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
        with self._watchers.place(watcher_of(context)):
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

    async def SubmitEvacuation(self, request: api.SubmitEvacuationRequest, context: object) -> api.EvacuationRecord:
        """Plan, enter and begin."""
        del context
        return evacuation_record(await self._leading.evacuations.submit(order_of(request)))

    async def ListEvacuations(
        self, request: api.ListEvacuationsRequest, context: object
    ) -> api.ListEvacuationsResponse:
        """Return the open ones, or all."""
        del context
        views = await self._leading.evacuations.views(everything=request.all)
        return api.ListEvacuationsResponse(evacuations=[evacuation_record(one) for one in views])

    async def GetEvacuation(self, request: api.EvacuationName, context: object) -> api.EvacuationRecord:
        """Return one."""
        del context
        return evacuation_record(await self._leading.evacuations.view(request.evacuation))

    async def WatchEvacuation(
        self, request: api.EvacuationName, context: object
    ) -> AsyncGenerator[api.EvacuationRecord, None]:
        """Yield one until it ends."""
        with self._watchers.place(watcher_of(context)):
            views = self._leading.evacuations.watch(request.evacuation)
            async with contextlib.aclosing(views):
                async for view in views:
                    yield evacuation_record(view)

    async def CancelEvacuation(self, request: api.EvacuationName, context: object) -> api.EvacuationRecord:
        """Cancel one."""
        del context
        return evacuation_record(await self._leading.evacuations.cancel(request.evacuation))

    async def SetMaintenance(self, request: api.SetMaintenanceRequest, context: object) -> api.MaintenanceRecord:
        """Have a host chosen no more, or again."""
        del context
        hosts = await self._leading.evacuations.set_maintenance(request.host, on=request.on)
        return api.MaintenanceRecord(hosts=sorted(hosts))

    async def GetMaintenance(self, request: api.GetMaintenanceRequest, context: object) -> api.MaintenanceRecord:
        """Return the hosts that are not chosen."""
        del request, context
        return api.MaintenanceRecord(hosts=sorted(await self._leading.evacuations.maintenance()))


def _identifier(attempt: str) -> str:
    try:
        return str(uuid.UUID(attempt))
    except ValueError:
        raise InvalidInput("bad-attempt", "The attempt is not named by a UUID", "Draw one") from None
