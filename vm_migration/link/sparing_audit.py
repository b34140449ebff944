"""The audit log of calls that are refused: each peer has so many lines, or it could fill the disk of the journals.

What was done, or may have been, has its line always. What is left out was refused before anything was done; it is
counted, and where it was refused for who made it, in the daemon's log as well (vm_migration.link.refusals).
"""

import time
from collections.abc import Callable
from typing import Final

from vm_migration.link.audit import Audit, Entry
from vm_migration.telemetry.allowance import Allowance
from vm_migration.telemetry.counts import WITHHELD_AUDIT_LINES

LINES_AT_ONCE: Final = 1000
LINES_PER_SECOND: Final = 0.1


class SparingAudit:
    """Passes entries on, and of a peer's refused calls so many at once and one every ten seconds from then on."""

    def __init__(self, audit: Audit, clock: Callable[[], float] = time.monotonic) -> None:
        self._audit: Final = audit
        self._clock: Final = clock
        self._lines: Final = Allowance(LINES_AT_ONCE, LINES_PER_SECOND)

    def __call__(self, entry: Entry) -> None:
        """Write an entry down, or count it."""
        if entry.outcome == "refused" and self._lines.take(entry.who, self._clock()) is None:
            WITHHELD_AUDIT_LINES.add()
            return
        self._audit(entry)
