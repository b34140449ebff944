"""How fast a machine dirties its memory, measured by the trackers that a migration would use (semantics 8.10).

Global dirty tracking is on for its own reason: devices stay RUNNING, and what is unmapped meanwhile is queried all the
same, or the pages that a device wrote before it was switched would be missing from the result.

A machine that moves by a stream of its own has no trackers to be read: its process finds out by samples of its memory.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Final

from vm_migration.loop_clock import loop_ns
from vm_migration.machine.errors import MachineRefused
from vm_migration.machine.port import Harvest, MachinePort
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE
from vmm.process.sampled_writes import WritesMeasured

_MOST_BESIDE: Final = 6.0
"""Seconds beside the window: a process may round it up, hashes twice, and has other work."""
_LOOK_AGAIN: Final = 0.05


@dataclass(frozen=True, slots=True)
class DirtyRate:
    """Distinct pages that were written in a window, and by whom; of one that was sampled nobody knows by whom.

    `exact` is false where it was, and where a tracker reports everything that it maps.
    """

    window_ms: float
    pages: int
    exact: bool
    cpu_pages: int = 0
    dma_pages: int = 0
    failure: str = ""
    sampled: bool = False


async def measure(machine: MachinePort, window_ms: int) -> DirtyRate:
    """Log every write for a window; tracking is off again when this returns, also when it fails or is cancelled.

    Raises:
        MachineError: The machine's process refused or is gone.
    """
    if (await machine.describe()).moves == "stream":
        found = await sampled_writes(machine, window_ms)
        pages = round(found.bytes_per_s * found.window_ms / 1000 / PAGE_SIZE)
        return DirtyRate(found.window_ms, pages, exact=False, sampled=True)
    exact, (harvest,), took_ms = await _harvested(machine, window_ms, 1)
    cpu, dma = harvest.cpu, harvest.dma
    return DirtyRate(took_ms, (cpu | dma).count(), exact, cpu.count(), dma.count(), harvest.failure or "")


async def sampled_writes(machine: MachinePort, window_ms: int) -> WritesMeasured:
    """Have a machine that moves by a stream of its own find out what it writes; a measurement that is left ends itself.

    Raises:
        MachineRefused: It does not end, or another one had not.
        MachineError: The machine's process is gone.
    """
    patience_s = window_ms / 1000 + _MOST_BESIDE
    try:
        async with asyncio.timeout(patience_s):
            await machine.measure_writes(window_ms)
            await asyncio.sleep(window_ms / 1000)  # the window itself
            while not (found := await machine.writes()).ended:  # noqa: ASYNC110 - its end has no event
                await asyncio.sleep(_LOOK_AGAIN)
    except TimeoutError:
        raise MachineRefused(f"Machine did not find out in {patience_s:g} s what it writes") from None
    return found


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
