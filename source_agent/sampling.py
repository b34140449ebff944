"""A machine is looked at for a moment before it is moved: what it dirties, and what its memory holds.

Its own trackers are asked, as in an attempt, and nothing stays switched on. That is done only while no attempt is open,
one at a time, and whoever waited while somebody else looked takes what that one saw.
"""

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Final

from source_agent.contents import data_bytes_of, packings_of
from source_agent.dirty_rate import measure_windows, sampled_writes
from source_agent.expectation import Sample
from source_agent.holdings import Holding, Holdings
from vm_migration.errors import MigrationError
from vm_migration.handover.custody import Custody
from vm_migration.handover.ownership import require_owner
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.errors import MachineError, MachineRefused
from vm_migration.machine.windows import require_measurable
from vm_migration.telemetry import logs
from vm_migration.transfer.ranges import Range
from vmm.process.control import Description

SLICES: Final = 8
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
        require_measurable(window_ms)
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
    described = await custody.port.describe()
    if described.moves == "stream":
        return await _look_at_streaming(custody, window_ms, described)
    writes = await measure_windows(custody.port, window_ms, SLICES)
    ram = await custody.port.ram()
    try:
        data_bytes = await asyncio.to_thread(data_bytes_of, ram)
        packings = await asyncio.to_thread(packings_of, ram, time.thread_time_ns)
    finally:
        ram.close()
    return Sample(writes.window_ms, writes.lines, data_bytes, writes.cpu_share, packings)


async def _look_at_streaming(custody: Custody, window_ms: int, described: Description) -> Sample:
    """Look at a machine that moves by a stream of its own, which no codec of ours packs."""
    writes = await sampled_writes(custody.port, window_ms)
    data_bytes = Range.exactly(described.populated_bytes)
    with suppress(MachineRefused):  # one that does not hand out its memory is taken to have filled it
        ram = await custody.port.ram()
        try:
            data_bytes = await asyncio.to_thread(data_bytes_of, ram)
        finally:
            ram.close()
    return Sample(writes.window_ms, (), data_bytes, bytes_per_s=float(writes.bytes_per_s))
