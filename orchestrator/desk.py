"""Where the commands about attempts turn to: the site's daemon, or this process itself over the store.

Both answer the same; `open_desk` chooses by the configuration. The local desk drives its own attempts only; of others
it reads the store and, where nobody drives them any more, what their source says.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from typing import Final, Protocol

from orchestrator import steering
from orchestrator.admission import Order, cancelled_order, consider, enter
from orchestrator.attempt import Attempt, Event
from orchestrator.drive import Drive
from orchestrator.driven_row import CancelAsked, give_back, unless
from orchestrator.evacuation.desk import EvacuationDesk, LocalEvacuationDesk
from orchestrator.learning import Listing, find, listing
from orchestrator.looking import as_it_stands, changes
from orchestrator.surroundings import Surroundings
from orchestrator.updating.drive import drive_of
from vm_migration.errors import InvalidInput

Observer = Callable[[Attempt], None]
CANCELLING: Final = "Cancelling; past the point of no return this would wait for the end"
CANCELLING_STILL: Final = "Cancelling still: waiting for the source to end the attempt"
LOOK_SECONDS: Final = 0.5


class Desk(Protocol):
    """What can be asked about attempts."""

    @property
    def evacuations(self) -> EvacuationDesk:
        """What can be asked about whole hosts."""

    async def migrate(self, order: Order, observe: Observer) -> Attempt:
        """Migrate and return the attempt when it has ended or is unresolved."""

    async def submit(self, order: Order) -> Attempt:
        """Enter an order and return at once."""

    async def interrupt(self) -> str:
        """Cancel what `migrate` is doing, however often, where it is not too late; return what is done, for people."""

    async def attempts(self, *, everything: bool, hosts: bool = True) -> Listing:
        """Return open attempts, or all: those of the store, and with `hosts` those that only a host knows."""

    async def attempt(self, start: str) -> Attempt:
        """Return the attempt whose UUID starts so."""

    async def events(self, attempt: Attempt) -> tuple[Event, ...]:
        """Return its transitions."""

    def watch(self, attempt: Attempt) -> AsyncGenerator[Attempt, None]:
        """Yield it at each change until it ends."""

    async def cancel(self, attempt: Attempt) -> Attempt:
        """Cancel it; refused past the point of no return."""

    async def force(self, attempt: Attempt) -> Attempt:
        """Switch over at once; refused where it sends no rounds."""

    async def tune(self, attempt: Attempt, *, downtime_limit_ms: int, max_bandwidth_bytes_per_s: int) -> Attempt:
        """Change its limits; 0 leaves one as it is."""


class LocalDesk:
    """This process, over the store."""

    def __init__(self, around: Surroundings, start_daemon: str) -> None:
        """Take what a driver works with; `start_daemon` is the command that would start a daemon."""
        self.evacuations = LocalEvacuationDesk(around, start_daemon)
        self._around = around
        self._start_daemon = start_daemon
        self._drives: set[Drive] = set()
        self._interrupted = asyncio.Event()

    async def migrate(self, order: Order, observe: Observer) -> Attempt:
        """Admit and drive in this process."""

        def both(attempt: Attempt) -> None:
            self._around.observe(attempt)
            observe(attempt)

        around = replace(self._around, observe=both)
        try:
            attempt = await unless(self._interrupted, consider(around, order))
        except CancelAsked:
            return cancelled_order(order, around.clock())
        attempt = await enter(around, attempt)
        while not attempt.ended:
            drive = drive_of(attempt, around)
            self._drives.add(drive)
            if self._interrupted.is_set():
                drive.request_cancel()
            try:
                attempt = await drive.run()
            except asyncio.CancelledError:
                give_back(around.store, drive.attempt)  # the source goes on alone; whoever asks next goes on here
                raise
            finally:
                self._drives.discard(drive)
            if drive.successor is None:
                break
            attempt = drive.successor
            both(attempt)
        return attempt

    async def submit(self, order: Order) -> Attempt:
        """Refuse: nobody would drive it.

        Raises:
            InvalidInput: Always.
        """
        raise InvalidInput(
            "no-daemon",
            f"Nothing would drive {order.machine} after this command ends: no orchestrator is configured",
            f"Start one: {self._start_daemon} (and name it in `[site] orchestrator`)",
        )

    async def interrupt(self) -> str:
        """Cancel this process's own attempts."""
        again = self._interrupted.is_set()
        late = [drive for drive in self._drives if drive.past_return]
        if late and len(late) == len(self._drives):
            return waiting_for_the_end(late[0].attempt.attempt)
        self._interrupted.set()
        for drive in self._drives:
            drive.request_cancel()
        return CANCELLING_STILL if again else CANCELLING

    async def attempts(self, *, everything: bool, hosts: bool = True) -> Listing:
        """Read the store, and ask the hosts; open attempts without a driver are completed by what their source says."""
        found = await listing(self._around, everything=everything, hosts=hosts)
        if not hosts:
            return found
        stand = await asyncio.gather(*(as_it_stands(self._around, row, found.silent) for row in found.attempts))
        return Listing(tuple(stand), found.silent)

    async def attempt(self, start: str) -> Attempt:
        """Read the store, or ask the hosts."""
        return await as_it_stands(self._around, await find(self._around, start))

    async def events(self, attempt: Attempt) -> tuple[Event, ...]:
        """Read the store."""
        return await asyncio.to_thread(self._around.store.events, attempt.attempt)

    async def watch(self, attempt: Attempt) -> AsyncGenerator[Attempt, None]:
        """Look at the store, or at the source where the store does not know it, until the attempt ends."""
        last: Attempt | None = None
        async with contextlib.aclosing(changes(self._around, attempt, LOOK_SECONDS)) as rows:
            async for row in rows:
                if last is None or replace(row, heartbeat=0.0) != replace(last, heartbeat=0.0):
                    yield row
                last = row

    async def cancel(self, attempt: Attempt) -> Attempt:
        """Tell its driver through the store, and its source directly."""
        return await steering.cancel(self._around, attempt)

    async def force(self, attempt: Attempt) -> Attempt:
        """Ask its source."""
        return await steering.force(self._around, attempt)

    async def tune(self, attempt: Attempt, *, downtime_limit_ms: int, max_bandwidth_bytes_per_s: int) -> Attempt:
        """Ask its source."""
        return await steering.tune(
            self._around,
            attempt,
            downtime_limit_ms=downtime_limit_ms,
            max_bandwidth_bytes_per_s=max_bandwidth_bytes_per_s,
        )


def waiting_for_the_end(attempt: str) -> str:
    """Return what a person is told whose cancel comes too late."""
    return f"Attempt {attempt} is past the point of no return: waiting for its end"


async def follow(attempts: AsyncIterator[Attempt], observe: Observer) -> Attempt | None:
    """Observe each and return the last."""
    last = None
    async for attempt in attempts:
        observe(attempt)
        last = attempt
    return last
