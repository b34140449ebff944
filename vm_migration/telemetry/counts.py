"""What this process has counted since it started. vm_migration.daemon.metrics_file tells it to whoever collects."""

from collections import Counter
from collections.abc import Mapping
from typing import Final


class Count:
    """One count, apart by the values of its labels, of which there must be few."""

    def __init__(self, name: str, about: str, *labels: str) -> None:
        """Name it as Prometheus does: a unit or a thing, without `_total`."""
        self.name: Final = name
        self.about: Final = about
        self.labels: Final = labels
        self._counted: Final[Counter[tuple[str, ...]]] = Counter()

    def add(self, *values: str) -> None:
        """Count one more; the values in the labels' order."""
        self._counted[values] += 1

    def read(self) -> Mapping[tuple[str, ...], int]:
        """Return what was counted, by the labels' values."""
        return dict(self._counted)


REFUSED_CALLS: Final = Count(
    "viaduct_refused_calls", "Calls that were refused for who made them", "method", "role", "code"
)
LOST_AUDIT_LINES: Final = Count("viaduct_lost_audit_lines", "Lines of the audit log that could not be written")
ALL: Final = (REFUSED_CALLS, LOST_AUDIT_LINES)
