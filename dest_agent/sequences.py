"""The highest sequence seen of each source's journal: a lower one is a journal that was rolled back under its agent."""

from typing import Final

from vm_migration.errors import Stale
from vm_migration.handover.arrival import source_sequence
from vm_migration.handover.record import Record

_KEPT: Final = 256


class Sequences:
    """By attempt, in memory and, once an arrival is READY, in its record."""

    def __init__(self) -> None:
        self._highest: Final[dict[str, int]] = {}

    def highest(self, attempt: str) -> int:
        """Return the highest seen in this life of the agent; 0 for none."""
        return self._highest.get(attempt, 0)

    def overtook(self, attempt: str, sequence: int, since: int) -> bool:
        """Say whether a source told more while it was asked, than it answered: that is old, and not rolled back.

        `since` is the highest that had been seen when it was asked.
        """
        return since <= sequence < self.highest(attempt)

    def check(self, attempt: str, sequence: int, record: Record | None = None) -> None:
        """Take note of a sequence that an attempt's source told; 0 tells nothing.

        Raises:
            Stale: It is lower than one that was seen before; nothing it says may be acted on.
        """
        if not sequence:
            return
        noted = source_sequence(record) if record is not None and record.attempt == attempt else 0
        highest = max(self.highest(attempt), noted)
        if sequence < highest:
            raise Stale(
                "journal-rolled-back",
                f"The source's journal is at record {sequence} and was at {highest}: it was put back to an older state",
                "Look at both hosts: viaduct doctor",
            )
        self._highest.pop(attempt, None)
        while len(self._highest) >= _KEPT:
            del self._highest[next(iter(self._highest))]
        self._highest[attempt] = sequence
