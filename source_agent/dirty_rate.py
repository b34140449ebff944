"""How fast a machine dirties its memory, measured by the trackers that a migration would use (semantics 8.10).

Global dirty tracking is on for its own reason: devices stay RUNNING, and what is unmapped meanwhile is queried all the
same, or the pages that a device wrote before it was switched would be missing from the result.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

from vm_migration.loop_clock import loop_ns
from vm_migration.machine.port import Harvest, MachinePort, MachineRefused
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class DirtyRate:
    """What was written in a window; `exact` is false where a tracker reports everything that it maps."""

    window_ms: float
    harvest: Harvest
    exact: bool


async def measure(machine: MachinePort, window_ms: int) -> DirtyRate:
    """Log every write for a window; tracking is off again when this returns, also when it fails or is cancelled.

    Raises:
        MachineError: The machine's process refused or is gone.
    """
    exact, (harvest,), took_ms = await _harvested(machine, window_ms, 1)
    return DirtyRate(took_ms, harvest, exact)


@dataclass(frozen=True, slots=True)
class WindowsOfWrites:
    """Distinct bytes written in a window, in its halves, and so on down to the slices that were harvested."""

    window_ms: float
    lines: tuple[tuple[int, ...], ...]
    """The slices first, the whole last; each line has half as many as the one before, of twice the length."""
    cpu_share: float
    """Of the whole window's pages, those that only vCPUs wrote; 1 where nothing was written."""


async def measure_windows(machine: MachinePort, window_ms: int, slices: int) -> WindowsOfWrites:
    """Log every write for a window, harvested in so many slices, a power of two; tracking is off again, as above.

    What a tracker reports that names everything it maps, always, is left out: it says nothing of any writing.

    Raises:
        MachineRefused: A harvest may have missed pages.
        MachineError: The machine's process refused or is gone.
    """
    exact, harvests, took_ms = await _harvested(machine, window_ms, slices)
    failure = next((each.failure for each in harvests if each.failure is not None), None)
    if failure is not None:
        raise MachineRefused(f"Dirty pages may be missing: {failure}")
    always = DirtyBitmap(harvests[0].dma.pages) if exact else reduce(and_, [each.dma for each in harvests])
    written = [(each.cpu | each.dma) - always for each in harvests]
    return WindowsOfWrites(took_ms, lines_of(written), cpu_share_of(harvests, always))


async def _harvested(machine: MachinePort, window_ms: int, slices: int) -> tuple[bool, list[Harvest], float]:
    """Log every write for a window; return whether trackers are exact, each slice's harvest, and the time it took."""
    exact = (await machine.describe()).tracking.exact
    harvests: list[Harvest] = []
    try:  # a start that is cut off may happen all the same
        await machine.start_tracking(reason="dirty-rate")
        started = loop_ns()
        for number in range(1, slices + 1):
            due_ns = started + round(window_ms * 1e6 * number / slices)
            await asyncio.sleep((due_ns - loop_ns()) / 1e9)  # the window itself
            harvests.append(await machine.harvest())
        return exact, harvests, (loop_ns() - started) / 1e6
    finally:
        await machine.stop_tracking()


def cpu_share_of(harvests: Sequence[Harvest], always: DirtyBitmap) -> float:
    """Return of all pages written, but those that are always reported, how many only vCPUs wrote, as a share."""
    dma = reduce(or_, [each.dma for each in harvests]) - always
    cpu = reduce(or_, [each.cpu for each in harvests]) - always
    every = (cpu | dma).count()
    return (cpu - dma).count() / every if every else 1.0


def lines_of(written: Sequence[DirtyBitmap]) -> tuple[tuple[int, ...], ...]:
    """Return the distinct bytes of each slice, of each two that follow each other, and so on to the whole."""
    lines, line = [], list(written)
    while True:
        lines.append(tuple(each.count() * PAGE_SIZE for each in line))
        if len(line) == 1:
            return tuple(lines)
        line = [one | other for one, other in zip(line[::2], line[1::2], strict=True)]
