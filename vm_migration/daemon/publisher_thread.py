"""A status publisher in a thread of its own: what is told does not wait for what else a busy event loop has to do.

Between two messages that the broker acknowledges lies a turn of the event loop. In that of an orchestrator which drives
hundreds of attempts a turn takes tens of milliseconds; here it takes one.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from typing import Final, Self

from vm_migration.daemon.publication import Publication
from vm_migration.daemon.status_publisher import StatusPublisher


class PublisherThread:
    """Publishes while the context is entered; met from the loop that entered it."""

    def __init__(self, publisher: StatusPublisher) -> None:
        """Take a publisher that nobody has entered."""
        self._publisher: Final = publisher
        self._begun: Final[concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = (
            concurrent.futures.Future()
        )
        # A process that ends without leaving the context does not wait for the broker.
        self._thread: Final = threading.Thread(target=self._live, name="status publisher", daemon=True)

    async def __aenter__(self) -> Self:
        """Start; returns at once, broker or not."""
        self._thread.start()
        self._loop, self._over = await asyncio.wrap_future(self._begun)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave as the publisher does: what is pending and `offline`, within two seconds."""
        self._call(self._over.set)
        await asyncio.to_thread(self._thread.join)

    async def wait_connected(self) -> None:
        """Wait until a broker has been told everything; give it a deadline."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._publisher.wait_connected(), self._loop))

    def wake(self) -> None:
        """Say that something lies in the outbox. Never waits, never raises."""
        self._call(self._publisher.wake)

    def progress(self, attempt: str, publication: Publication | None) -> None:
        """Offer an attempt's progress; None says that it has ended. Never waits, never raises."""
        self._call(lambda: self._publisher.progress(attempt, publication))

    def tell(self, topic: str, current: Callable[[], Publication | None]) -> None:
        """Have a retained topic told as `current`, which may block, says in its turn. Never waits, never raises."""
        self._call(lambda: self._publisher.tell(topic, current))

    def _call(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(function)

    def _live(self) -> None:
        asyncio.run(self._publish())

    async def _publish(self) -> None:
        over = asyncio.Event()
        async with self._publisher:
            self._begun.set_result((asyncio.get_running_loop(), over))
            await over.wait()
