"""Which process of a machine this is, on which boot of its host."""

import functools
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process this is: freeing and fencing name it, never the machine's name."""

    machine: str
    boot_id: str
    pid: int
    instance: str


@functools.cache
def boot_id() -> str:
    """Return which boot of the host this is; processes of one boot share one monotonic clock."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
