"""Where the commands about whole hosts turn to: the site's daemon, or this process itself over the store.

Both answer the same, as orchestrator.desk does about single attempts. The local desk drives what it was asked for, and
nothing else; what nobody drives any more is cancelled by whoever asks for that.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final, Protocol

from orchestrator.driving import Driving, driving
from orchestrator.evacuation.kept import KeptEvacuations, driven
from orchestrator.evacuation.order import EvacuationOrder
from orchestrator.evacuation.service import look, look_at_all
from orchestrator.evacuation.view import EvacuationView
from orchestrator.maintenance import in_maintenance, set_maintenance
from orchestrator.surroundings import Surroundings
from vm_migration.errors import InvalidInput, Refused

ViewObserver = Callable[[EvacuationView], None]
CANCELLING: Final = "Cancelling: nothing more starts; what is past the point of no return goes on to its end"
NOT_YET: Final = "Cancelling as soon as the order is taken"
_LOOK_SECONDS: Final = 0.5


class EvacuationDesk(Protocol):
    """What can be asked about evacuations, and about hosts in maintenance."""

    async def run(self, order: EvacuationOrder, observe: ViewObserver) -> EvacuationView:
        """Enter an order, and return it when it has ended."""

    async def submit(self, order: EvacuationOrder) -> EvacuationView:
        """Enter an order and return at once."""

    async def interrupt(self) -> str:
        """Cancel what `run` is doing, and return what is done now, for people."""

    async def all(self, *, everything: bool) -> tuple[EvacuationView, ...]:
        """Return the open ones, or all, newest first."""

    async def find(self, start: str) -> EvacuationView:
        """Return the one whose identifier starts so."""

    def watch(self, view: EvacuationView) -> AsyncGenerator[EvacuationView, None]:
        """Yield it at each change until it ends."""

    async def cancel(self, view: EvacuationView) -> EvacuationView:
        """Cancel it."""

    async def maintenance(self) -> frozenset[str]:
        """Return the hosts in maintenance."""

    async def set_maintenance(self, host: str, *, on: bool) -> frozenset[str]:
        """Put a host into maintenance or take it out, and return all that are."""


class LocalEvacuationDesk:
    """This process, over the store."""

    def __init__(self, around: Surroundings, start_daemon: str) -> None:
        """Take what a driver works with; `start_daemon` is the command that would start a daemon."""
        self._around = around
        self._start_daemon = start_daemon
        self._kept = KeptEvacuations(around.store.entries)
        self._interrupted = asyncio.Event()

    async def run(self, order: EvacuationOrder, observe: ViewObserver) -> EvacuationView:
        """Drive in this process."""
        async with driving(self._around, adopts=False) as at_work:
            view = await at_work.evacuations.submit(order)
            observe(view)
            async with self._interruptible(at_work, order.evacuation):
                return await follow_view(at_work.evacuations.watch(order.evacuation), observe) or view

    @contextlib.asynccontextmanager
    async def _interruptible(self, at_work: Driving, evacuation: str) -> AsyncIterator[None]:
        async def interrupted() -> None:
            await self._interrupted.wait()
            with contextlib.suppress(Refused):  # it has ended meanwhile
                await at_work.evacuations.cancel(evacuation)

        task = asyncio.create_task(interrupted(), name="interrupt")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def submit(self, order: EvacuationOrder) -> EvacuationView:
        """Refuse: nobody would drive it.

        Raises:
            InvalidInput: Always.
        """
        raise InvalidInput(
            "no-daemon",
            f"Nothing would drive {order.host}'s machines after this command ends: no orchestrator is configured",
            f"Start one: {self._start_daemon} (and name it in `[site] orchestrator`)",
        )

    async def interrupt(self) -> str:
        """Cancel this process's own evacuation."""
        self._interrupted.set()
        return CANCELLING

    async def all(self, *, everything: bool) -> tuple[EvacuationView, ...]:
        """Read the store."""
        return await asyncio.to_thread(look_at_all, self._around.store, everything=everything)

    async def find(self, start: str) -> EvacuationView:
        """Read the store."""
        return await asyncio.to_thread(look, self._around.store, start)

    async def watch(self, view: EvacuationView) -> AsyncGenerator[EvacuationView, None]:
        """Look at the store until it ends.

        Raises:
            Refused: Nobody drives it.
        """
        last: EvacuationView | None = None
        while True:
            now = await self.find(view.evacuation)
            if now != last:
                last = now
                yield now
            if now.ended:
                return
            await self._require_driver(now.evacuation)
            await asyncio.sleep(_LOOK_SECONDS)  # whoever drives is another process: only the store tells of it

    async def cancel(self, view: EvacuationView) -> EvacuationView:
        """Leave the wish for its driver; what nobody drives is brought to its end here."""
        plan = await asyncio.to_thread(self._kept.find, view.evacuation)
        if driven(plan, self._around.clock()):
            await asyncio.to_thread(self._kept.request_cancel, plan.evacuation)
            return await self.find(plan.evacuation)
        async with driving(self._around, adopts=False) as at_work:
            await at_work.evacuations.cancel(plan.evacuation)
            return await at_work.evacuations.ended(plan.evacuation)

    async def maintenance(self) -> frozenset[str]:
        """Read the store."""
        return await asyncio.to_thread(in_maintenance, self._around.store.entries)

    async def set_maintenance(self, host: str, *, on: bool) -> frozenset[str]:
        """Write the store."""
        self._around.agents.require(host)
        await asyncio.to_thread(set_maintenance, self._around.store.entries, host, on=on)
        return await self.maintenance()

    async def _require_driver(self, evacuation: str) -> None:
        plan = await asyncio.to_thread(self._kept.find, evacuation)
        if not plan.ended and not driven(plan, self._around.clock()):
            text = f"Nobody drives evacuation {evacuation}"
            raise Refused("driver-gone", text, f"End it: viaduct cancel {evacuation}; then evacuate again")


async def follow_view(views: AsyncIterator[EvacuationView], observe: ViewObserver) -> EvacuationView | None:
    """Observe each and return the last."""
    last = None
    async for view in views:
        observe(view)
        last = view
    return last
