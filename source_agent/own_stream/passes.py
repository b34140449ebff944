"""What a machine's own stream has come to, pass by pass, from what its process answers; pure.

Processes tell sums. A pass over the memory ends where the next one begins, and where the guest stops: its figures are
the differences.
"""

from typing import Final

from vm_migration.transfer.convergence import RoundMeasurement
from vmm.memory.quantities import PAGE_SIZE
from vmm.process.own_stream import StreamState


class Passes:
    """Of one attempt; times are nanoseconds of one clock."""

    def __init__(self, now_ns: int) -> None:
        self.first_ns: Final = now_ns
        """When it began."""
        self._number = 0
        self._began_ns = self._moved_ns = self._now_ns = now_ns
        self.transferred = 0
        """Bytes that were sent so far."""
        self._sent_before = self._remaining = self._total = 0
        self._dirty_bytes_per_s = 0
        self._throttle_percent = 0
        """The most that was taken from the vCPUs' time in the pass that is under way."""

    @property
    def percent(self) -> int:
        """Of the memory, how much was looked at in the first pass; never quite all."""
        return min(99, 100 * (self._total - self._remaining) // self._total) if self._total else 0

    @property
    def unmoved_s(self) -> float:
        """For how long nothing was sent."""
        return (self._now_ns - self._moved_ns) / 1e9

    def saw(self, state: StreamState, now_ns: int) -> RoundMeasurement | None:
        """Take an answer, and return the pass that has ended since the one before, where one has."""
        self._now_ns, self._total = now_ns, state.total
        if state.transferred != self.transferred or state.remaining != self._remaining:
            self._moved_ns = now_ns
        self.transferred = max(self.transferred, state.transferred)  # QEMU 7.2 may say 0 once it has completed
        self._remaining, self._dirty_bytes_per_s = state.remaining, state.dirty_bytes_per_s
        closed = None
        if state.passes > max(1, self._number + 1):
            closed, self._throttle_percent = self.closed(now_ns), 0
        self._throttle_percent = max(self._throttle_percent, state.throttle_percent)
        return closed

    def stopped(self, now_ns: int) -> RoundMeasurement | None:
        """Return the pass that the guest's stop ends; None where one has just begun, in which nothing was sent yet."""
        return self.closed(now_ns) if self.transferred > self._sent_before or not self._number else None

    def closed(self, now_ns: int) -> RoundMeasurement:
        """Return the pass that has ended by now.

        Of the first one, what was looked at and not sent are pages that hold nothing.
        """
        sent, took_ns = self.transferred - self._sent_before, now_ns - self._began_ns
        dirtied = min(self._remaining, round(self._dirty_bytes_per_s * took_ns / 1e9)) // PAGE_SIZE
        looked_at = self._total - self._remaining if self._number == 0 else 0
        zero_pages = max(0, looked_at - sent) // PAGE_SIZE
        measured = RoundMeasurement(
            round=self._number,
            dirty_pages=sent // PAGE_SIZE + zero_pages,
            sent_pages=sent // PAGE_SIZE,
            zero_pages=zero_pages,
            wire_bytes=sent,
            ms=took_ns / 1e6,
            dirtied_pages=dirtied,
            unsent_pages=self._remaining // PAGE_SIZE - dirtied,
            throttle_percent=self._throttle_percent,
        )
        self._number += 1
        self._began_ns, self._sent_before = now_ns, self.transferred
        return measured
