"""How long this host takes to prepare for a machine, from what its last preparations took, or a trial; pure.

Starting a machine's processes takes as long for each machine, touching its memory as long for each byte. The agent's
life is its memory: until its first preparation the time is assumed.
"""

from collections import OrderedDict
from dataclasses import dataclass
from statistics import median
from typing import Final

from vm_migration.transfer.forecast import prepare_ms_expected

_KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class PrepareTime:
    """One preparation, in milliseconds."""

    ram_bytes: int
    launch_ms: float
    touch_ms: float


class PrepareTimes:
    """The last preparations, by attempt: one that is asked for again counts once."""

    def __init__(self) -> None:
        self._times: Final[OrderedDict[str, PrepareTime]] = OrderedDict()

    def note(self, attempt: str, time: PrepareTime) -> None:
        """Remember a preparation; the oldest of many is forgotten."""
        self._times[attempt] = time
        while len(self._times) > _KEPT:
            self._times.popitem(last=False)

    def expected_ms(self, ram_bytes: int, ms_per_byte: float | None = None) -> float:
        """Return how long the next one takes, for a machine of so much memory; `ms_per_byte` is what it costs now."""
        times = [time for time in self._times.values() if time.ram_bytes]
        launch_ms = median(time.launch_ms for time in times) if times else prepare_ms_expected(0)
        if ms_per_byte is not None:
            return launch_ms + ms_per_byte * ram_bytes
        if not times:
            return prepare_ms_expected(ram_bytes)
        return launch_ms + median(time.touch_ms / time.ram_bytes for time in times) * ram_bytes
