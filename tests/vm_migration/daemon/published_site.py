"""What the tests of the status publisher publish: one attempt's documents, an outbox, and a publisher of both."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.vm_migration.daemon.mqtt_brokers import DEADLINE, Received
from vm_migration.daemon import status_documents as documents
from vm_migration.daemon.broker_url import parse_broker
from vm_migration.daemon.outbox import NOTHING, Entry, Outbox
from vm_migration.daemon.publication import Publication
from vm_migration.daemon.status_publisher import StatusPublisher
from vm_migration.daemon.status_topics import Topics

TOPICS = Topics("home")
ATTEMPT = "4b7c2f0e-0f5a-4c5e-9d0a-3a1c3a5b6c7d"
STATUS = TOPICS.orchestrator("main")
NOW = "2026-01-02T03:04:05.678Z"
RATES = documents.Rates(dirty_bytes_per_s=1e8, wire_bytes_per_s=9.5e8)


@dataclass
class Journal:
    """An outbox as a store has it: entries with numbers, and what stands."""

    entries: list[Entry] = field(default_factory=list)
    taken: int = 0
    acknowledged: int = 0
    standing: dict[str, Publication] = field(default_factory=dict)

    def add(self, publication: Publication) -> None:
        if publication.retain:
            self.standing[publication.topic] = publication
        self.entries.append(Entry(len(self.entries) + 1, publication))

    def pending(self, limit: int) -> Sequence[Entry]:
        return self.entries[self.taken : self.taken + limit]

    def acknowledge(self, number: int) -> None:
        assert self.taken < number <= len(self.entries), "acknowledged out of order"
        self.taken = number
        self.acknowledged += 1

    def retained(self) -> Sequence[Publication]:
        return list(self.standing.values())


def state(sequence: int, outcome: Literal["completed"] | None = None) -> documents.MigrationState:
    return documents.MigrationState(
        attempt=ATTEMPT,
        machine="qat-guest",
        source="host-a",
        destination="host-b",
        epoch=3,
        sequence=sequence,
        phase="pre-copy" if outcome is None else "completed",
        percent=40,
        rates=RATES,
        remaining_bytes=1 << 30,
        expected_downtime_ms=120.5,
        reason="the remaining work does not fit the downtime limit",
        outcome=outcome,
        error=None,
        updated=NOW,
    )


def event(sequence: int, error: documents.Problem | None = None) -> Publication:
    document = documents.MigrationEvent(
        attempt=ATTEMPT,
        machine="qat-guest",
        epoch=3,
        sequence=sequence,
        phase="pre-copy",
        reason="",
        outcome="failed" if error else None,
        error=error,
        at=NOW,
    )
    return documents.event_message(TOPICS, document)


def progress(percent: int, attempt: str = ATTEMPT) -> Publication:
    document = documents.MigrationProgress(
        attempt=attempt,
        machine="qat-guest",
        epoch=3,
        phase="pre-copy",
        percent=percent,
        round=2,
        rates=RATES,
        remaining_bytes=0,
        expected_downtime_ms=None,
        updated=NOW,
    )
    return documents.progress_message(TOPICS, document)


OWNER = documents.owner_message(TOPICS, documents.Owner(machine="qat-guest", host="host-b", epoch=3))
EVACUATION = documents.evacuation_message(
    TOPICS,
    documents.EvacuationState(
        evacuation=f"ev-{ATTEMPT}",
        kind="evacuate",
        host="host-a",
        parallel=2,
        percent=50,
        machines=(
            documents.EvacuationMove(machine="qat-guest", destination="host-b", attempt=ATTEMPT, outcome="completed"),
            documents.EvacuationMove(machine="waits", destination=None, attempt=None, outcome=None),
        ),
        cancel_requested=False,
        outcome=None,
        created=NOW,
        updated=NOW,
    ),
)


def publisher(
    url: str,
    outbox: Outbox = NOTHING,
    session: str = "s1",
    fraction: float = 0.0,
    clock: Callable[[], float] = time.time,
) -> StatusPublisher:
    return StatusPublisher(
        parse_broker(url),
        status_topic=STATUS,
        identifier="viaduct-test",
        outbox=outbox,
        session=session,
        clock=clock,
        fraction=lambda: fraction,
    )


async def connected(status: StatusPublisher) -> None:
    async with asyncio.timeout(DEADLINE):
        await status.wait_connected()


def sequences(messages: list[Received]) -> list[object]:
    return [message.document["sequence"] for message in messages]
