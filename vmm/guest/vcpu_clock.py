"""Time as vCPUs have it: it stands still in the slices that are taken from them.

::

    host   |--10 ms--|------- taken -------|--10 ms--|------- taken -------|
    vCPUs  |--10 ms--|                     |--10 ms--|

The shape of QEMU's `cpu-throttle`: of each period vCPUs keep ten milliseconds, and the period is as long as the share
taken asks for. All vCPUs lose the same slices. A throttle ends by itself at a moment that whoever asks for it names, so
that nobody who dies leaves a guest slow. Devices have the host's time.
"""

from typing import Final

SLICE_NS: Final = 10_000_000
MOST_PERCENT: Final = 99


class VcpuClock:
    """Host time in, vCPU time out, both in nanoseconds; neither ever goes back while the host's does not."""

    __slots__ = ("_percent", "_since", "_taken", "_until")

    def __init__(self) -> None:
        self._percent = 0
        self._since = 0
        self._until = 0
        self._taken = 0
        """All that was taken before the present throttle."""

    def throttle(self, percent: int, now_ns: int, until_ns: int) -> None:
        """Take so much of the vCPUs' time from now on, until a moment; 0 gives it back.

        Asked for what holds already, it only holds for longer.
        """
        if percent and percent == self.percent(now_ns):
            self._until = until_ns
            return
        self._taken = now_ns - self.time(now_ns)
        self._percent, self._since, self._until = percent, now_ns, until_ns

    def percent(self, now_ns: int) -> int:
        """Return how much of the vCPUs' time is taken at a moment."""
        return self._percent if now_ns < self._until else 0

    def time(self, now_ns: int) -> int:
        """Return the vCPUs' time at a moment of the host's."""
        past = max(0, min(now_ns, self._until) - self._since)
        periods, rest = divmod(past, self._period)
        return now_ns - self._taken - periods * (self._period - SLICE_NS) - max(0, rest - SLICE_NS)

    def runs_at(self, now_ns: int) -> int:
        """Return from when on vCPUs run: now, or at the end of the slice that is being taken."""
        if not self.percent(now_ns):
            return now_ns
        into = (now_ns - self._since) % self._period
        return now_ns if into < SLICE_NS else min(now_ns - into + self._period, self._until)

    def moment_of(self, time_ns: int) -> int:
        """Return the first moment of the host's at which vCPUs run and have come to a time of theirs."""
        since = self._since - self._taken
        if not self._percent or time_ns < since:
            return time_ns + self._taken
        periods, rest = divmod(time_ns - since, SLICE_NS)
        moment = self._since + periods * self._period + rest
        return moment if moment < self._until else self._until + max(0, time_ns - self.time(self._until))

    @property
    def _period(self) -> int:
        return SLICE_NS * 100 // (100 - self._percent)
