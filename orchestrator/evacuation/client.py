"""Evacuations of the site's orchestrator daemons, asked over gRPC."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from orchestrator.doors import Doors
from orchestrator.evacuation.desk import CANCELLING, NOT_YET, ViewObserver, follow_view
from orchestrator.evacuation.order import EvacuationOrder
from orchestrator.evacuation.record import request_of, view_from
from orchestrator.evacuation.view import EvacuationView
from orchestrator.watched import watched
from vm_migration.api.v1 import orchestrator_pb2 as api
from vm_migration.errors import MigrationError, Refused, Unreachable, Unresolved

NOT_OFFERED: Final = "not-offered"
_ASK_SECONDS: Final = 20.0
_SUBMIT_SECONDS: Final = 60.0


class RemoteEvacuationDesk:
    """The daemon as a desk."""

    def __init__(self, doors: Doors) -> None:
        """Speak through open doors, to the one that leads."""
        self._doors = doors
        self._current: EvacuationView | None = None
        self._interrupted = False

    async def run(self, order: EvacuationOrder, observe: ViewObserver) -> EvacuationView:
        """Submit and watch to the end.

        Raises:
            Unresolved: The daemon took it and cannot be heard any more; it goes on, or will.
        """
        view = self._current = await self.submit(order)
        observe(view)
        if self._interrupted:
            await self.interrupt()
        try:
            return await follow_view(self.watch(view), observe) or view
        except Unreachable as error:
            hint = f"When it is back: viaduct watch {view.evacuation}"
            raise Unresolved("orchestrator-silent", error.message, hint) from None

    async def submit(self, order: EvacuationOrder) -> EvacuationView:
        """Enter an order."""
        request = request_of(order)
        record = await self._doors.ask(lambda stub: stub.SubmitEvacuation, request, deadline=_SUBMIT_SECONDS)
        return view_from(record)

    async def interrupt(self) -> str:
        """Have the daemon cancel what `run` watches."""
        self._interrupted = True
        if self._current is None:
            return NOT_YET
        try:
            await self.cancel(self._current)
        except MigrationError as error:
            return f"Not cancelled: {error.message}"
        return CANCELLING

    async def all(self, *, everything: bool) -> tuple[EvacuationView, ...]:
        """Return the open ones, or all, newest first."""
        request = api.ListEvacuationsRequest(all=everything)
        try:
            answer = await self._doors.ask(lambda stub: stub.ListEvacuations, request, deadline=_ASK_SECONDS)
        except Refused as error:
            if error.code == NOT_OFFERED:  # a daemon of 0.1.0 has none
                return ()
            raise
        return tuple(view_from(record) for record in answer.evacuations)

    async def find(self, start: str) -> EvacuationView:
        """Return the one whose identifier starts so."""
        request = api.EvacuationName(evacuation=start)
        return view_from(await self._doors.ask(lambda stub: stub.GetEvacuation, request, deadline=_ASK_SECONDS))

    async def watch(self, view: EvacuationView) -> AsyncGenerator[EvacuationView, None]:
        """Yield it at each change until it ends; a lost connection is made again, for as long as this is patient."""
        request = api.EvacuationName(evacuation=view.evacuation)
        told = watched(self._doors, lambda stub: stub.WatchEvacuation, request)
        async with contextlib.aclosing(told):
            async for one in told:
                if not isinstance(one, Unreachable):
                    yield view_from(one)

    async def cancel(self, view: EvacuationView) -> EvacuationView:
        """Cancel it."""
        request = api.EvacuationName(evacuation=view.evacuation)
        return view_from(await self._doors.ask(lambda stub: stub.CancelEvacuation, request, deadline=_ASK_SECONDS))

    async def maintenance(self) -> frozenset[str]:
        """Return the hosts in maintenance."""
        request = api.GetMaintenanceRequest()
        try:
            answer = await self._doors.ask(lambda stub: stub.GetMaintenance, request, deadline=_ASK_SECONDS)
        except Refused as error:
            if error.code == NOT_OFFERED:  # a daemon of 0.1.0 knows none
                return frozenset()
            raise
        return frozenset(answer.hosts)

    async def set_maintenance(self, host: str, *, on: bool) -> frozenset[str]:
        """Put a host into maintenance or take it out, and return all that are."""
        request = api.SetMaintenanceRequest(host=host, on=on)
        answer = await self._doors.ask(lambda stub: stub.SetMaintenance, request, deadline=_ASK_SECONDS)
        return frozenset(answer.hosts)
