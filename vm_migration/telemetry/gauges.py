"""What is true of a daemon when somebody collects. The daemon reads it then; nothing is kept.

The names follow KubeVirt's metrics of migrations. Per-attempt gauges are there for as long as their attempt is open, so
that there are as many as attempts may be open at a host ([limits] attempts).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from vm_migration.telemetry.daemons import AGENTS, EVERY, Daemon


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure that goes up and down: its name, with the unit, and what tells several of it apart."""

    name: str
    about: str
    labels: tuple[str, ...] = ()
    of: tuple[Daemon, ...] = EVERY


@dataclass(frozen=True, slots=True)
class Reading:
    """One gauge as it stands, with its labels' values in their order."""

    gauge: Gauge
    value: float
    labels: tuple[str, ...] = ()


Read = Callable[[], Awaitable[Sequence[Reading]]]
"""Reads the gauges of a daemon; called in its event loop."""

_SOURCE: Final = (Daemon.SOURCE,)
_DEST: Final = (Daemon.DEST,)
_ORCHESTRATOR: Final = (Daemon.ORCHESTRATOR,)
_ATTEMPT: Final = ("machine", "attempt", "destination")

CERTIFICATE_EXPIRES: Final = Gauge(
    "viaduct_certificate_expires_timestamp_seconds",
    "When the certificate ends, or the authority that signed it, in seconds since 1970",
)
BUILD: Final = Gauge("viaduct_build_info", "Always 1; its label says the version", ("version",))

MACHINES: Final = Gauge("viaduct_machines", "Machines of the host that have a process, arriving ones too", of=AGENTS)
MEMORY_BUDGET: Final = Gauge("viaduct_memory_budget_bytes", "RAM that machines may have on the host", of=AGENTS)
MEMORY_IN_USE: Final = Gauge("viaduct_memory_in_use_bytes", "RAM of the machines of the host", of=AGENTS)
MEMORY_RESERVED: Final = Gauge(
    "viaduct_memory_reserved_bytes", "RAM that the agent keeps for machines that are being made or arrive", of=AGENTS
)
ATTEMPTS_OPEN: Final = Gauge("viaduct_open_attempts", "Attempts that are open at this agent", of=AGENTS)

IN_PHASE: Final = Gauge("viaduct_migrations_in_phase", "Attempts that leave this host, by phase", ("phase",), _SOURCE)
UPDATES_IN_PHASE: Final = Gauge("viaduct_updates_in_phase", "Updates that are open, by phase", ("phase",), _SOURCE)
DATA_TOTAL: Final = Gauge("viaduct_migration_data_total_bytes", "RAM of the machine", _ATTEMPT, _SOURCE)
DATA_PROCESSED: Final = Gauge(
    "viaduct_migration_data_processed_bytes", "Pages that were sent, before anything made them fewer", _ATTEMPT, _SOURCE
)
DATA_TRANSFERRED: Final = Gauge(
    "viaduct_migration_data_transferred_bytes", "What was sent on the wire for the machine", _ATTEMPT, _SOURCE
)
DATA_REMAINING: Final = Gauge(
    "viaduct_migration_data_remaining_bytes", "Pages that are yet to be sent, as far as is known", _ATTEMPT, _SOURCE
)
DEVICE_REMAINING: Final = Gauge(
    "viaduct_migration_device_state_remaining_bytes", "State of the devices that a stop would leave", _ATTEMPT, _SOURCE
)
DIRTY_RATE: Final = Gauge(
    "viaduct_migration_dirty_memory_rate_bytes", "Bytes a second that were dirtied in the last round", _ATTEMPT, _SOURCE
)
TRANSFER_RATE: Final = Gauge(
    "viaduct_migration_memory_transfer_rate_bytes", "Bytes a second on the wire in the last round", _ATTEMPT, _SOURCE
)
EXPECTED_DOWNTIME: Final = Gauge(
    "viaduct_migration_expected_downtime_seconds",
    "How long the guest would stand still if it were stopped now",
    _ATTEMPT,
    _SOURCE,
)
DOWNTIME_LIMIT: Final = Gauge(
    "viaduct_migration_downtime_limit_seconds", "How long it may stand still, as tuned last", _ATTEMPT, _SOURCE
)
PROGRESS: Final = Gauge("viaduct_migration_progress_ratio", "How much of the phase is done, 0 to 1", _ATTEMPT, _SOURCE)
THROTTLE: Final = Gauge(
    "viaduct_migration_throttle_ratio", "Share of the vCPUs' time taken from them, 0 to 1", _ATTEMPT, _SOURCE
)

ARRIVALS: Final = Gauge("viaduct_arrivals", "Machines that are arriving, by state in the journal", ("state",), _DEST)
ARRIVAL_STALE: Final = Gauge(
    "viaduct_arrival_stale_bytes", "Pages that were announced and have not come", ("machine", "attempt"), _DEST
)

LEADS: Final = Gauge(
    "viaduct_orchestrator_leads", "Whether this orchestrator drives: 1, or 0 while it stands by", of=_ORCHESTRATOR
)
QUEUE_LENGTH: Final = Gauge("viaduct_queue_length", "Attempts that wait for their turn", of=_ORCHESTRATOR)
ATTEMPTS_IN_PHASE: Final = Gauge(
    "viaduct_attempts_in_phase", "Open attempts of the store, by phase", ("phase",), _ORCHESTRATOR
)
UNRESOLVED: Final = Gauge(
    "viaduct_unresolved_attempts", "Open attempts whose hosts did not tell how they stand", of=_ORCHESTRATOR
)
OUTBOX: Final = Gauge(
    "viaduct_outbox_backlog_messages", "Messages that the broker does not have yet, 10000 at most", of=_ORCHESTRATOR
)
EVACUATIONS: Final = Gauge("viaduct_evacuations", "Evacuations and restores that are open", ("kind",), _ORCHESTRATOR)
EVACUATION_MACHINES: Final = Gauge(
    "viaduct_evacuation_machines",
    "Machines of the open evacuation or restore of a host: waiting, moving, or how their move ended",
    ("host", "kind", "state"),
    _ORCHESTRATOR,
)
EVACUATION_DONE: Final = Gauge(
    "viaduct_evacuation_done_ratio",
    "How much of the memory of its machines has an outcome, 0 to 1",
    ("host", "kind"),
    _ORCHESTRATOR,
)
MAINTENANCE: Final = Gauge("viaduct_hosts_in_maintenance", "Hosts that nobody chooses", of=_ORCHESTRATOR)

ALL: Final = (
    BUILD,
    CERTIFICATE_EXPIRES,
    MACHINES,
    MEMORY_BUDGET,
    MEMORY_IN_USE,
    MEMORY_RESERVED,
    ATTEMPTS_OPEN,
    IN_PHASE,
    UPDATES_IN_PHASE,
    DATA_TOTAL,
    DATA_PROCESSED,
    DATA_TRANSFERRED,
    DATA_REMAINING,
    DEVICE_REMAINING,
    DIRTY_RATE,
    TRANSFER_RATE,
    EXPECTED_DOWNTIME,
    DOWNTIME_LIMIT,
    PROGRESS,
    THROTTLE,
    ARRIVALS,
    ARRIVAL_STALE,
    LEADS,
    QUEUE_LENGTH,
    ATTEMPTS_IN_PHASE,
    UNRESOLVED,
    OUTBOX,
    EVACUATIONS,
    EVACUATION_MACHINES,
    EVACUATION_DONE,
    MAINTENANCE,
)


async def nothing_read() -> Sequence[Reading]:
    """Have no gauges of one's own."""
    return ()
