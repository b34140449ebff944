"""The documents of docs/asyncapi.yaml, and the messages that carry them.

Rates are bytes a second, times RFC 3339 in UTC. `sequence` grows by one with each transition of an attempt: a reader
who sees a gap in the events missed one, and finds the whole truth in the state.
"""

from typing import Final, Literal

import msgspec

from vm_migration.daemon.publication import AT_MOST_ONCE, Publication
from vm_migration.daemon.status_topics import Topics

PRESENCE: Final = "viaduct.presence.v1"
STATE: Final = "viaduct.migration.state.v1"
PROGRESS: Final = "viaduct.migration.progress.v1"
EVENT: Final = "viaduct.migration.event.v1"
OWNER: Final = "viaduct.machine.owner.v1"
EVACUATION: Final = "viaduct.evacuation.state.v1"

Outcome = Literal["completed", "failed", "cancelled", "refused", "unresolved", "lost"]


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a publisher is there. An `offline` of another session than the last `online` is a late will."""

    schema: Literal["viaduct.presence.v1"] = PRESENCE
    status: Literal["online", "offline"]
    session: str


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the guest dirties memory and the wire carries it."""

    dirty_bytes_per_s: float
    wire_bytes_per_s: float


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt did not complete; the code is stable."""

    code: str
    message: str
    hint: str = ""


class MigrationState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of an attempt, whole at each time."""

    schema: Literal["viaduct.migration.state.v1"] = STATE
    attempt: str
    machine: str
    source: str
    destination: str
    epoch: int
    sequence: int
    phase: str
    percent: int
    rates: Rates
    remaining_bytes: int
    expected_downtime_ms: float | None
    reason: str
    outcome: Outcome | None
    error: Problem | None
    updated: str


class MigrationProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an open attempt is; may be lost."""

    schema: Literal["viaduct.migration.progress.v1"] = PROGRESS
    attempt: str
    machine: str
    epoch: int
    phase: str
    percent: int
    round: int
    rates: Rates
    remaining_bytes: int
    expected_downtime_ms: float | None
    updated: str


class MigrationEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One transition of an attempt."""

    schema: Literal["viaduct.migration.event.v1"] = EVENT
    attempt: str
    machine: str
    epoch: int
    sequence: int
    phase: str
    reason: str
    outcome: Outcome | None
    error: Problem | None
    at: str


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Which host owns a machine since which epoch."""

    schema: Literal["viaduct.machine.owner.v1"] = OWNER
    machine: str
    host: str
    epoch: int


class EvacuationMove(msgspec.Struct, frozen=True, kw_only=True):
    """One machine of an evacuation: where it goes, and its last attempt, whose own topics tell the rest."""

    machine: str
    destination: str | None
    attempt: str | None
    outcome: Outcome | None


class EvacuationState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of an evacuation or a restore, whole at each time."""

    schema: Literal["viaduct.evacuation.state.v1"] = EVACUATION
    evacuation: str
    kind: Literal["evacuate", "restore"]
    host: str
    parallel: int
    percent: int
    machines: tuple[EvacuationMove, ...]
    cancel_requested: bool
    outcome: Outcome | None
    created: str
    updated: str


def presence_message(topic: str, status: Literal["online", "offline"], session: str) -> Publication:
    """Say that a publisher is there, or not; retained."""
    payload = msgspec.json.encode(Presence(status=status, session=session))
    return Publication(topic, payload, retain=True, properties=(("schema", PRESENCE),))


def state_message(topics: Topics, state: MigrationState, expires_at: float | None = None) -> Publication:
    """Carry a state; one that is final expires some days after the end (`expires_at`, seconds since the epoch)."""
    properties = _properties(state.schema, state.attempt, state.epoch)
    payload = msgspec.json.encode(state)
    return Publication(topics.state(state.attempt), payload, retain=True, expires_at=expires_at, properties=properties)


def progress_message(topics: Topics, progress: MigrationProgress) -> Publication:
    """Carry progress: not retained, at most once."""
    properties = _properties(progress.schema, progress.attempt, progress.epoch)
    payload = msgspec.json.encode(progress)
    return Publication(topics.progress(progress.attempt), payload, qos=AT_MOST_ONCE, properties=properties)


def event_message(topics: Topics, event: MigrationEvent) -> Publication:
    """Carry an event: not retained, at least once."""
    properties = _properties(event.schema, event.attempt, event.epoch)
    return Publication(topics.event(event.attempt), msgspec.json.encode(event), properties=properties)


def owner_message(topics: Topics, owner: Owner) -> Publication:
    """Carry an owner; retained."""
    properties = (("schema", owner.schema), ("epoch", str(owner.epoch)))
    return Publication(topics.owner(owner.machine), msgspec.json.encode(owner), retain=True, properties=properties)


def evacuation_message(topics: Topics, state: EvacuationState, expires_at: float | None = None) -> Publication:
    """Carry how an evacuation stands; retained, and expires as an attempt's state."""
    properties = (("schema", state.schema), ("evacuation", state.evacuation))
    payload = msgspec.json.encode(state)
    topic = topics.evacuation(state.evacuation)
    return Publication(topic, payload, retain=True, expires_at=expires_at, properties=properties)


def _properties(schema: str, attempt: str, epoch: int) -> tuple[tuple[str, str], ...]:
    return (("schema", schema), ("attempt", attempt), ("epoch", str(epoch)))
