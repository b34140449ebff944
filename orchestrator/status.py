"""What the store has to tell, as MQTT messages: an outbox over the store, and a publisher for whoever drives.

An entry of the outbox says which row is to be told; the message is made when it is published, of the row as it then
stands, so that it never contradicts the store. Only drivers publish.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from orchestrator.attempt import Attempt, Event
from orchestrator.evacuation.kept import KeptEvacuations
from orchestrator.evacuation.publication import evacuation_publication
from orchestrator.progress_pace import ProgressPace
from orchestrator.result import percent_of, rounds_closed, timestamp
from orchestrator.store.claim import CLAIM_SECONDS
from orchestrator.store.parts import parts
from orchestrator.store.store import OutboxRow, Ownership, Store
from orchestrator.untold import untold
from vm_migration.daemon.broker_url import Broker
from vm_migration.daemon.outbox import Entry
from vm_migration.daemon.publication import Publication
from vm_migration.daemon.publisher_thread import PublisherThread
from vm_migration.daemon.status_documents import (
    MigrationEvent,
    MigrationProgress,
    MigrationState,
    Owner,
    Problem,
    Rates,
    event_message,
    owner_message,
    progress_message,
    state_message,
)
from vm_migration.daemon.status_publisher import StatusPublisher
from vm_migration.daemon.status_topics import Topics
from vm_migration.errors import InvalidInput

_Read = Mapping[str, tuple[Attempt, Sequence[Event]]]
KEEP_SECONDS: Final = 3 * 86_400.0  # a state that is final stays this long under its retained topic

_READ_AT_ONCE: Final = 500
"""Attempts, with their events."""


class StoreOutbox:
    """One driver's share of the store's outbox."""

    def __init__(self, store: Store, driver: str, topics: Topics, clock: Callable[[], float]) -> None:
        self._store = store
        self._driver = driver
        self._topics = topics
        self._clock = clock
        self._evacuations = KeptEvacuations(store.entries)

    def pending(self, limit: int) -> Sequence[Entry]:
        """Return what no broker has yet, oldest first."""
        rows = self._store.pending(self._driver, limit)
        last = {(row.kind, row.subject, row.sequence): row.number for row in rows}
        read = self._store.with_events({row.subject for row in rows if row.kind != "owner"})
        found = (
            (row.number, self._publication(row, read))
            for row in rows
            if last[row.kind, row.subject, row.sequence] == row.number  # a state is told once, as it stands now
        )
        return tuple(Entry(number, publication) for number, publication in found if publication is not None)

    def acknowledge(self, number: int) -> None:
        """Note that a broker has everything up to this number."""
        self._store.acknowledge(self._driver, number)

    def retained(self) -> Sequence[Publication]:
        """Return every state that still counts, of attempts and evacuations, and every owner."""
        since = self._clock() - KEEP_SECONDS
        states = [
            state_publication(events, self._topics, one)
            for part in parts([one.attempt for one in self._store.standing(since)], _READ_AT_ONCE)
            for one, events in self._store.with_events(part).values()
        ]
        plans = (one for one in self._evacuations.all() if not one.ended or one.updated_at > since)
        states += [evacuation_publication(self._topics, one, KEEP_SECONDS) for one in plans]
        return (*states, *(_owner(self._topics, owner) for owner in self._store.owners()))

    def evacuation(self, evacuation: str) -> Publication | None:
        """Return an evacuation as it stands; None where nobody remembers it."""
        try:
            return evacuation_publication(self._topics, self._evacuations.find(evacuation), KEEP_SECONDS)
        except InvalidInput:
            return None

    def _publication(self, row: OutboxRow, read: _Read) -> Publication | None:
        if row.kind == "owner":
            owner = self._store.owner_of(row.subject)
            return _owner(self._topics, owner) if owner else None
        attempt, events = read[row.subject]
        if row.kind == "state":
            return state_publication(events, self._topics, attempt)
        event = next((one for one in events if one.sequence == row.sequence), None)
        return event_publication(self._topics, attempt, event) if event else None


@dataclass(frozen=True, slots=True)
class Publishing:
    """Where a driver tells what changed; with no broker configured it tells nobody."""

    topics: Topics
    outbox: StoreOutbox
    publisher: PublisherThread | None
    pace: ProgressPace = field(default_factory=ProgressPace)

    def observe(self, attempt: Attempt) -> None:
        """Take note of a change. Never waits, never raises."""
        if self.publisher is not None:
            if attempt.ended:
                self.pace.over(attempt.attempt)
                self.publisher.progress(attempt.attempt, None)  # first, so that none comes after the end
            elif self.pace.due(attempt.attempt):
                self.publisher.progress(attempt.attempt, progress_publication(self.topics, attempt))
            self.publisher.wake()

    def observe_evacuation(self, evacuation: str) -> None:
        """Take note of a change of an evacuation. Never waits, never raises."""
        if self.publisher is not None:
            self.publisher.tell(self.topics.evacuation(evacuation), partial(self.outbox.evacuation, evacuation))


@contextlib.asynccontextmanager
async def publishing(
    store: Store, driver: str, site: str, broker: Broker | None, clock: Callable[[], float]
) -> AsyncIterator[Publishing]:
    """Publish what this driver's attempts do, and what dead drivers left unpublished, while the context is entered."""
    topics = Topics(site)
    outbox = StoreOutbox(store, driver, topics, clock)
    if broker is None:
        async with untold(store, driver, clock):
            yield Publishing(topics, outbox, None)
        return
    await asyncio.to_thread(store.adopt_outbox, driver, clock(), CLAIM_SECONDS)
    status_topic = topics.orchestrator(driver)
    publishes = StatusPublisher(broker, status_topic=status_topic, identifier=driver, outbox=outbox)
    async with PublisherThread(publishes) as publisher:
        yield Publishing(topics, outbox, publisher)


def state_publication(events: Sequence[Event], topics: Topics, attempt: Attempt) -> Publication:
    """Return an attempt's whole state; one that is final expires."""
    report = attempt.report
    state = MigrationState(
        attempt=attempt.attempt,
        machine=attempt.name,
        source=attempt.source,
        destination=attempt.destination,
        epoch=attempt.epoch,
        sequence=events[-1].sequence if events else 0,
        phase=attempt.phase.value,
        percent=percent_of(attempt),
        rates=_rates(attempt),
        remaining_bytes=report.remaining_bytes if report else 0,
        expected_downtime_ms=report.expected_downtime_ms if report else None,
        reason=attempt.reason,
        outcome=attempt.outcome.value if attempt.outcome else None,
        error=_problem(attempt),
        updated=timestamp(attempt.updated_at),
    )
    return state_message(topics, state, attempt.updated_at + KEEP_SECONDS if attempt.ended else None)


def event_publication(topics: Topics, attempt: Attempt, event: Event) -> Publication:
    """Return one transition."""
    message = MigrationEvent(
        attempt=attempt.attempt,
        machine=attempt.name,
        epoch=attempt.epoch,
        sequence=event.sequence,
        phase=event.phase.value,
        reason=event.reason,
        outcome=event.outcome.value if event.outcome else None,
        error=_problem(attempt) if event.outcome else None,
        at=timestamp(event.at),
    )
    return event_message(topics, message)


def progress_publication(topics: Topics, attempt: Attempt) -> Publication:
    """Return how far an open attempt is."""
    report = attempt.report
    message = MigrationProgress(
        attempt=attempt.attempt,
        machine=attempt.name,
        epoch=attempt.epoch,
        phase=attempt.phase.value,
        percent=percent_of(attempt),
        round=rounds_closed(report),
        rates=_rates(attempt),
        remaining_bytes=report.remaining_bytes if report else 0,
        expected_downtime_ms=report.expected_downtime_ms if report else None,
        updated=timestamp(attempt.updated_at),
    )
    return progress_message(topics, message)


def _owner(topics: Topics, owner: Ownership) -> Publication:
    return owner_message(topics, Owner(machine=owner.name, host=owner.host, epoch=owner.epoch))


def _rates(attempt: Attempt) -> Rates:
    last = attempt.report.rounds[-1] if attempt.report is not None and attempt.report.rounds else None
    if last is None:
        return Rates(dirty_bytes_per_s=0.0, wire_bytes_per_s=0.0)
    return Rates(dirty_bytes_per_s=last.dirty_bytes_per_s, wire_bytes_per_s=last.wire_bytes_per_s)


def _problem(attempt: Attempt) -> Problem | None:
    error = attempt.error
    return Problem(code=error.code, message=error.message, hint=error.hint) if error else None
