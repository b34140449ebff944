"""A machine is looked at for a moment before it is moved: what it dirties, and how much of its memory is zero.

Its own trackers are asked, as in an attempt, and nothing stays switched on. That is done only while no attempt is open,
one at a time, and whoever waited while somebody else looked takes what that one saw.
"""

import asyncio
from collections import OrderedDict
from typing import Final

import numpy as np
import numpy.typing as npt

from source_agent.dirty_rate import measure_windows
from source_agent.expectation import Sample
from source_agent.holdings import Holding, Holdings
from vm_migration.errors import InvalidInput, MigrationError
from vm_migration.handover.custody import Custody
from vm_migration.handover.ownership import require_owner
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.port import MachineError
from vm_migration.machine.windows import LONGEST_WINDOW_MS, SHORTEST_SAMPLE_MS
from vm_migration.telemetry import logs
from vm_migration.transfer.digests import zero_rows
from vm_migration.transfer.ranges import Range
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock

SLICES: Final = 8
_PAGES: Final = 2048
"""Pages that are read: a share of zeros is known to about two hundredths then."""
_SURE: Final = 2.0
"""Standard errors to either side, which is where the truth lies in nineteen of twenty."""
_KEPT: Final = 64
_log: Final = logs.get(__name__)


class Sampler:
    """Looks at the machines of a host."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings: Final = holdings
        self._seen: Final[OrderedDict[str, tuple[int, Sample]]] = OrderedDict()

    async def of(self, holding: Holding, window_ms: int) -> Sample | None:
        """Look at a machine that runs for a while; None for no time, or where it does not run or cannot be looked at.

        Raises:
            InvalidInput: The window is too short or too long.
        """
        if not window_ms:
            return None
        if not SHORTEST_SAMPLE_MS <= window_ms <= LONGEST_WINDOW_MS:
            text = f"Measuring for {window_ms} ms is not within {SHORTEST_SAMPLE_MS} and {LONGEST_WINDOW_MS} ms"
            raise InvalidInput("invalid-window", text, "Choose another --measure")
        if holding.description is None or holding.description.run_state != "running":
            return None
        return await self._sample(holding.record.machine, window_ms)

    async def _sample(self, machine: str, window_ms: int) -> Sample | None:
        asked = loop_ns()
        try:
            async with self._holdings.hold(machine) as custody:
                require_owner(custody.record)
                seen_at, sample = self._seen.get(machine, (-1, None))
                if sample is None or seen_at < asked:
                    sample = await _look(custody, window_ms)
                    self._keep(machine, sample)
                return sample
        except (MigrationError, MachineError) as error:
            _log.info("machine could not be looked at", machine=machine, reason=str(error))
            return None

    def _keep(self, machine: str, sample: Sample) -> None:
        self._seen[machine] = (loop_ns(), sample)
        self._seen.move_to_end(machine)
        while len(self._seen) > _KEPT:
            self._seen.popitem(last=False)


async def _look(custody: Custody, window_ms: int) -> Sample:
    writes = await measure_windows(custody.port, window_ms, SLICES)
    ram = await custody.port.ram()
    try:
        data_bytes = await asyncio.to_thread(data_bytes_of, ram)
    finally:
        ram.close()
    return Sample(writes.window_ms, writes.lines, data_bytes, writes.cpu_share)


def data_bytes_of(ram: RamBlock) -> Range:
    """Return how much of RAM holds something other than zeros, from pages at equal distances of what was touched."""
    extents = np.array(list(ram.extents()), dtype=np.int64).reshape(-1, 2)
    ends = np.cumsum(extents[:, 1])
    total = int(ends[-1]) if len(ends) else 0
    if not total:
        return Range.exactly(0.0)
    chosen = np.linspace(0, total - 1, min(total, _PAGES)).astype(np.int64)
    pages = _pages_at(chosen, extents, ends)
    share = 1.0 - float(zero_rows(ram.words[pages]).mean())
    error = 0.0 if total <= _PAGES else _SURE * max(share * (1 - share) / len(pages), len(pages) ** -2.0) ** 0.5
    low, high = max(0.0, share - error), min(1.0, share + error)
    return Range(low * total * PAGE_SIZE, share * total * PAGE_SIZE, high * total * PAGE_SIZE)


def _pages_at(
    positions: npt.NDArray[np.int64], extents: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the pages that stand at positions of the extents, as if these followed each other."""
    within = np.searchsorted(ends, positions, side="right")
    pages: npt.NDArray[np.int64] = extents[within, 0] + positions - (ends[within] - extents[within, 1])
    return pages
