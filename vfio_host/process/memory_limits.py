"""How much memory a process may have locked, as the kernel knows it."""

import resource
from pathlib import Path
from typing import Final

_CAP_IPC_LOCK: Final = 1 << 14
_CAPABILITIES: Final = "CapEff:"


def no_limit(_process: int) -> int | None:
    """Return None: a host that heeds no limit."""
    return None


def limit_of(process: int) -> int | None:
    """Return RLIMIT_MEMLOCK of a process in bytes; None where there is none, or CAP_IPC_LOCK lifts it.

    Raises:
        OSError: There is no such process, or it is another user's.
    """
    status = Path(f"/proc/{process}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(_CAPABILITIES))
    if int(line.removeprefix(_CAPABILITIES), 16) & _CAP_IPC_LOCK:
        return None
    soft, _ = resource.prlimit(process, resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft
