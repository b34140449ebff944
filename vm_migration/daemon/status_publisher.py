"""Keeps the broker told, whatever happens to it.

::

    connect -> `online` -> what is pending, in order -> every retained topic as it is true now
            -> whatever comes: pending entries, retained topics that changed, at most one progress a second and attempt
    stop    -> what is pending -> `offline` -> disconnect          (a dead process: the broker publishes the will)

States and events are never kept here: they lie in the outbox, which is the journal's, until a broker has them. Progress
is kept here only, the newest of each attempt, and is what is dropped. A broker that is away costs one warning and
nothing else: no call of this module waits for it, but the exit, and that for two seconds at most.
"""

import asyncio
import contextlib
import random
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from vm_migration.daemon import mqtt
from vm_migration.daemon.broker_url import Broker
from vm_migration.daemon.mqtt_version import BrokerGone, Version, find_version
from vm_migration.daemon.outbox import NOTHING, Outbox
from vm_migration.daemon.publication import Publication
from vm_migration.daemon.status_documents import presence_message
from vm_migration.errors import Refused, innermost
from vm_migration.telemetry import logs

PROGRESS_SECONDS: Final = 1.0
FAREWELL_SECONDS: Final = 2.0
FIRST_RETRY_SECONDS: Final = 0.5
LAST_RETRY_SECONDS: Final = 30.0
_BATCH: Final = 256
_ATTEMPTS_WITH_PROGRESS: Final = 1024
_TOPICS_TO_CLEAR: Final = 4096
_TOPICS_DUE: Final = 4096
_BESIDE: Final = 32
"""Of what may wait: so many between two looks at what is pending."""

_log: Final = logs.get(__name__)


def retry_seconds(failures: int, fraction: float) -> float:
    """Return how long to wait after so many failures in a row: doubling to half a minute, and half of it by chance."""
    ceiling = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * (1 << min(failures, 16)))
    return ceiling * (0.5 + fraction / 2)


class StatusPublisher:
    """Publishes while the context is entered."""

    def __init__(
        self,
        broker: Broker,
        *,
        status_topic: str,
        identifier: str,
        outbox: Outbox = NOTHING,
        session: str | None = None,
        clock: Callable[[], float] = time.time,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        """Describe the publisher; `session` names this one life of it, `fraction` spreads the retries of many."""
        session = uuid.uuid4().hex if session is None else session
        self._broker = broker
        self._identifier = identifier
        self._online = presence_message(status_topic, "online", session)
        self._offline = presence_message(status_topic, "offline", session)
        self._outbox = outbox
        self._clock = clock
        self._fraction = fraction
        self._version: Version | None = None
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._up = asyncio.Event()
        self._trying = False
        self._progress: OrderedDict[str, Publication] = OrderedDict()
        self._progress_sent: dict[str, float] = {}
        self._expiring: OrderedDict[str, Publication] = OrderedDict()
        self._due: OrderedDict[str, Callable[[], Publication | None]] = OrderedDict()
        self._told: mqtt.Connection | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether a broker has been told everything up to the connection."""
        return self._up.is_set()

    async def wait_connected(self) -> None:
        """Wait until a broker has been told everything; give it a deadline."""
        await self._up.wait()

    def wake(self) -> None:
        """Say that something lies in the outbox. Never waits, never raises."""
        self._wake.set()

    def progress(self, attempt: str, publication: Publication | None) -> None:
        """Offer an attempt's progress; the newest wins, and nothing is kept while no broker is there.

        None says that it has ended: what waits for its second is not told any more.
        """
        if publication is None:
            self._progress.pop(attempt, None)
            return
        if not self.connected:
            return
        self._progress[attempt] = publication
        while len(self._progress) > _ATTEMPTS_WITH_PROGRESS:
            self._progress.popitem(last=False)
        self._wake.set()

    def tell(self, topic: str, current: Callable[[], Publication | None]) -> None:
        """Have a retained topic told as `current`, which may block, says in its turn. Never waits, never raises.

        It needs no entry in the outbox: a connection that ends before is followed by one that tells all of them.
        """
        self._due[topic] = current
        while len(self._due) > _TOPICS_DUE:  # those dropped are told at a later connect
            self._due.popitem(last=False)
        self._wake.set()

    async def __aenter__(self) -> Self:
        """Start; returns at once, broker or not."""
        self._task = asyncio.create_task(self._run(), name="status-publisher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish what is pending and `offline`, within two seconds; what stays lies in the outbox."""
        self._stopping.set()
        self._wake.set()
        if self._task is None:
            return
        if self._trying or self.connected:
            await asyncio.wait([self._task], timeout=FAREWELL_SECONDS)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        failures = 0
        while True:
            self._trying = True
            reason = await self._one_connection()
            if self._up.is_set():
                failures = 0
            self._up.clear()
            self._trying = False
            if self._stopping.is_set():
                return
            if failures == 0:
                _log.warning("broker away", broker=str(self._broker), reason=reason)
            delay = retry_seconds(failures, self._fraction())
            failures += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()

    async def _one_connection(self) -> str:
        """Connect and publish until it ends; return why it did."""
        reason = ""
        try:
            await self._serve(await find_version(self._broker, self._version))
        except* BrokerGone as group:
            reason = str(innermost(group))
        except* Refused as group:  # the journal behind the outbox rests; what is pending lies there
            reason = str(innermost(group))
        except* Exception as group:  # noqa: BLE001  # whatever it is, status is never worth a migration
            reason = "a fault of ours"
            _log.error("status not published", exc_info=innermost(group))
        return reason

    async def _serve(self, version: Version) -> None:
        async with (
            mqtt.connect(self._broker, self._identifier, self._offline, version) as connection,
            asyncio.TaskGroup() as tasks,
        ):
            self._version = version
            watch = tasks.create_task(connection.lost(), name="broker-watch")
            await self._greet(connection)
            _log.info("broker connected", broker=str(self._broker), version=version.name)
            self._up.set()
            await self._follow(connection)
            watch.cancel()

    async def _greet(self, connection: mqtt.Connection) -> None:
        # Pending first: an entry may be older than the truth, which then has the last word.
        self._progress.clear()
        self._expiring.clear()
        await self._send(connection, self._online)
        await self._send_pending(connection)
        self._due.clear()  # all of them are told now
        retained = await asyncio.to_thread(self._outbox.retained)
        for start in range(0, len(retained), _BATCH):
            await self._send_all(connection, retained[start : start + _BATCH])

    async def _follow(self, connection: mqtt.Connection) -> None:
        while True:
            self._wake.clear()
            await self._send_pending(connection)
            await self._send_due(connection)
            await self._send_progress(connection)
            await self._clear_expired(connection)
            if self._stopping.is_set():
                await self._send(connection, self._offline)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_next()):
                    await self._wake.wait()

    async def _send_pending(self, connection: mqtt.Connection) -> None:
        while entries := await asyncio.to_thread(self._outbox.pending, _BATCH):
            await self._send_all(connection, [entry.publication for entry in entries])
            await asyncio.to_thread(self._outbox.acknowledge, entries[-1].number)

    async def _send_due(self, connection: mqtt.Connection) -> None:
        """Tell many of the retained topics that changed, as they stand now; the rest after what is pending by then."""
        taken = [self._due.popitem(last=False)[1] for _ in range(min(len(self._due), _BESIDE))]
        told = await asyncio.to_thread(lambda: [current() for current in taken])
        await self._send_all(connection, [one for one in told if one is not None])
        if self._due:
            self._wake.set()

    async def _send_all(self, connection: mqtt.Connection, publications: Sequence[Publication]) -> None:
        """Send some in order, and wait until the broker has all of them: it answers one while it reads the next."""
        async with asyncio.TaskGroup() as group:
            for publication in publications:
                group.create_task(self._send(connection, publication), name=f"publish {publication.topic}")

    async def _send_progress(self, connection: mqtt.Connection) -> None:
        now = asyncio.get_running_loop().time()
        self._progress_sent = {a: sent for a, sent in self._progress_sent.items() if now - sent < PROGRESS_SECONDS}
        ready = [attempt for attempt in self._progress if attempt not in self._progress_sent]
        for attempt in ready[:_BESIDE]:
            self._progress_sent[attempt] = now
            await self._send(connection, self._progress.pop(attempt))
        if len(ready) > _BESIDE:
            self._wake.set()

    async def _clear_expired(self, connection: mqtt.Connection) -> None:
        now = self._clock()
        for publication in [each for each in self._expiring.values() if each.seconds_left(now) == 0]:
            await self._send(connection, publication)

    async def _send(self, connection: mqtt.Connection, publication: Publication) -> None:
        seconds = publication.seconds_left(self._clock())
        self._expiring.pop(publication.topic, None)
        if seconds == 0 and publication.retain:
            await connection.publish(publication.cleared())
            return
        if publication.retain and seconds is not None and connection.version is Version.V311:
            self._expiring[publication.topic] = publication
            while len(self._expiring) > _TOPICS_TO_CLEAR:  # those dropped are cleared at a later connect
                self._expiring.popitem(last=False)
        await connection.publish(publication, seconds)
        if connection.refusal and self._told is not connection:
            self._told = connection  # once: whoever may not publish this may not publish its like
            _log.warning("publication refused", topic=publication.topic, reason=connection.refusal)

    def _seconds_to_next(self) -> float | None:
        """Return when something is due that nobody will wake us for."""
        now = asyncio.get_running_loop().time()
        due = [PROGRESS_SECONDS - (now - sent) for a, sent in self._progress_sent.items() if a in self._progress]
        wall = self._clock()
        due += [each.expires_at - wall for each in self._expiring.values() if each.expires_at is not None]
        return max(0.0, min(due)) + 0.001 if due else None
