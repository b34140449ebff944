"""How fast guest and device together dirty memory on this machine: 500 MiB/s asked for, 90 % must be reached.

Counted as distinct pages x 4 KiB of one second's harvest, with both trackers on, by whoever would have to send them.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Final
from uuid import uuid4

from benchmarks.figures import Row
from benchmarks.rig import GIB, MIB
from vm_migration.machine.launch import launch, take_away
from vm_migration.machine.run_directory import RunDirectory
from vm_migration.machine.software import SoftwareMachine
from vmm.assembly.specification import parse_specification
from vmm.memory.quantities import PAGE_SIZE

CPU: Final = 350 * MIB
DMA: Final = 150 * MIB
_SETTLE: Final = 2.0


async def measure(folder: Path, runs: int) -> list[Row]:
    """Return the achieved rate of each second."""
    document = {
        "name": "fast",
        "memory": {"size": 2 * GIB},
        "guest": {"cpu_dirty_rate": CPU, "working_set": 512 * MIB},
        "device": [{"name": "qat0", "model": "qat", "address": "00:04.0", "dma_rate": DMA}],
    }
    specification = parse_specification(json.dumps(document).encode())
    directory = await launch(RunDirectory(folder), uuid4(), specification, incoming=False)
    machine = SoftwareMachine(directory.path)
    try:
        await machine.attach(1, 1)
        await asyncio.sleep(_SETTLE)  # both begin from nothing, and the first second is not a whole one
        await machine.start_tracking()
        dirtied = [await _second(machine) for _ in range(runs + 1)][1:]
        errors = (await machine.describe()).guest.errors
    finally:
        await take_away(directory, machine)
        await machine.close()
    asked = (CPU + DMA) / MIB
    return [
        Row("dirtied by guest and device", "MiB/s", tuple(dirtied), must=0.9 * asked, note=f"{asked:.0f} asked"),
        Row("guest errors meanwhile", "errors", (float(errors),), must=0.0, better="lower"),
    ]


async def _second(machine: SoftwareMachine) -> float:
    started = time.monotonic()
    await asyncio.sleep(1.0)
    harvest = await machine.harvest()
    return (harvest.cpu | harvest.dma).count() * PAGE_SIZE / MIB / (time.monotonic() - started)
