"""What this process has counted since it started. vm_migration.daemon.metrics tells it to whoever collects."""

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final

from vm_migration.telemetry.daemons import EVERY, Daemon


class Count:
    """One count, apart by the values of its labels, of which there must be few."""

    def __init__(self, name: str, about: str, *labels: str, of: tuple[Daemon, ...] = EVERY) -> None:
        """Name it as Prometheus does: a unit or a thing, without `_total`."""
        self.name: Final = name
        self.about: Final = about
        self.labels: Final = labels
        self.of: Final = of
        self._counted: Final[Counter[tuple[str, ...]]] = Counter()
        self._lock: Final = threading.Lock()

    def add(self, *values: str) -> None:
        """Count one more, from any thread; the values in the labels' order."""
        with self._lock:
            self._counted[values] += 1

    def read(self) -> Mapping[tuple[str, ...], int]:
        """Return what was counted, by the labels' values; what has no labels was counted, 0 times at least."""
        with self._lock:
            return dict(self._counted) if self.labels or self._counted else {(): 0}


REFUSED_CALLS: Final = Count(
    "viaduct_refused_calls", "Calls that were refused for who made them", "method", "role", "code"
)
LOST_AUDIT_LINES: Final = Count("viaduct_lost_audit_lines", "Lines of the audit log that could not be written")
WITHHELD_AUDIT_LINES: Final = Count(
    "viaduct_withheld_audit_lines", "Lines of refused calls that the audit log was spared, of peers that have many"
)
TURNED_AWAY_CALLS: Final = Count(
    "viaduct_turned_away_calls", "Calls that were not looked at, because their peer had too many", "role"
)
CONNECTIONS: Final = Count("viaduct_connections", "Connections under TLS that came, whoever made them", "listener")
IDENTIFIED_CONNECTIONS: Final = Count(
    "viaduct_identified_connections", "Connections that showed a certificate and asked for something", "listener"
)
MIGRATIONS_ENDED: Final = Count(
    "viaduct_migrations_ended", "Attempts that left this host, by how they ended", "outcome", of=(Daemon.SOURCE,)
)
UPDATES_ENDED: Final = Count(
    "viaduct_updates_ended",
    "Updates of machines of this host, by mode and how they ended",
    "mode",
    "outcome",
    of=(Daemon.SOURCE,),
)
ARRIVALS_PREPARED: Final = Count(
    "viaduct_arrivals_prepared", "Machines that this host made itself ready for", of=(Daemon.DEST,)
)
ARRIVALS_ACTIVATED: Final = Count("viaduct_arrivals_activated", "Machines that came to life here", of=(Daemon.DEST,))
ATTEMPTS_ENDED: Final = Count(
    "viaduct_attempts_ended", "Attempts that this orchestrator saw end, by how", "outcome", of=(Daemon.ORCHESTRATOR,)
)
EVACUATIONS_ENDED: Final = Count(
    "viaduct_evacuations_ended",
    "Evacuations and restores that this orchestrator drove to their end, by how",
    "kind",
    "outcome",
    of=(Daemon.ORCHESTRATOR,),
)
ALL: Final = (
    REFUSED_CALLS,
    LOST_AUDIT_LINES,
    WITHHELD_AUDIT_LINES,
    TURNED_AWAY_CALLS,
    CONNECTIONS,
    IDENTIFIED_CONNECTIONS,
    MIGRATIONS_ENDED,
    UPDATES_ENDED,
    ARRIVALS_PREPARED,
    ARRIVALS_ACTIVATED,
    ATTEMPTS_ENDED,
    EVACUATIONS_ENDED,
)
