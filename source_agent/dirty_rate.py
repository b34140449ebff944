"""How fast a machine dirties its memory, measured by the trackers that a migration would use (semantics 8.10).

Global dirty tracking is on for its own reason: devices stay RUNNING, and what is unmapped meanwhile is queried all the
same, or the pages that a device wrote before it was switched would be missing from the result.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from vm_migration.loop_clock import loop_ns
from vm_migration.machine.port import Harvest, MachinePort

SHORTEST_WINDOW_MS: Final = 10
LONGEST_WINDOW_MS: Final = 10_000
"""A machine is held for that long: nothing else is done to it."""


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
    exact = (await machine.describe()).tracking.exact
    try:  # a start that is cut off may happen all the same
        await machine.start_tracking(reason="dirty-rate")
        started = loop_ns()
        await asyncio.sleep(window_ms / 1000)  # the window itself
        harvest = await machine.harvest()
        taken = loop_ns()
    finally:
        await machine.stop_tracking()
    return DirtyRate((taken - started) / 1e6, harvest, exact)
