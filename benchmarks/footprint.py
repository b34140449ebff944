"""What processes hold at a moment: descriptors, memory of their own, and children, those that nobody has reaped too."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.system.processes import naming, own_memory

_END_SECONDS: Final = 10.0
_LOOK: Final = 0.05


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of all processes that were asked about; memory is what no file is behind."""

    descriptors: int
    anonymous_bytes: int
    children: int


def footprint(pids: Iterable[int]) -> Footprint:
    """Return what some processes hold now."""
    asked = list(pids)
    return Footprint(
        descriptors=sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in asked),
        anonymous_bytes=sum(map(own_memory, asked)),
        children=sum(len(children_of(pid)) for pid in asked),
    )


def children_of(pid: int) -> list[int]:
    """Return the processes whose parent a process is, with those that have ended and were not reaped."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the thread has ended by now
            found += map(int, (task / "children").read_text().split())
    return found


async def settled(pid: int, children: int) -> Footprint:
    """Return what a process holds once it has so many children at most, or as it is when that takes too long."""
    until = time.monotonic() + _END_SECONDS
    while len(children_of(pid)) > children and time.monotonic() < until:  # noqa: ASYNC110 - /proc tells nobody
        await asyncio.sleep(_LOOK)
    return footprint([pid])


def daemon_of(program: str, configuration: Path) -> int:
    """Return the process of a daemon that was started with a configuration file.

    Raises:
        RuntimeError: There is none, or several.
    """
    found = [
        pid
        for pid, words in naming(configuration.parent, set()).items()
        if program in words and str(configuration) in words.split()
    ]
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} processes of {program} with {configuration}")
    return found[0]
