"""How fast guest and device together dirty memory on this machine: 500 MiB/s asked for, 90 % must be reached."""

import asyncio
from typing import Final

from benchmarks.figures import Row
from benchmarks.rig import GIB, MIB, rig

CPU: Final = 350 * MIB
DMA: Final = 150 * MIB
_SETTLE: Final = 2.0


async def measure(runs: int) -> list[Row]:
    """Return the achieved rates, each over a whole second, with tracking off."""
    document: dict[str, object] = {
        "name": "fast",
        "memory": {"size": 2 * GIB},
        "guest": {"cpu_dirty_rate": CPU, "working_set": 512 * MIB},
        "device": [{"name": "qat0", "model": "qat", "address": "00:04.0", "dma_rate": DMA}],
    }
    together, errors = [], []
    async with rig(document, insecure=False) as site:
        await asyncio.sleep(_SETTLE)
        for _ in range(runs):
            await asyncio.sleep(1.0)  # the guest reports the last whole second
            guest = (await site.look()).guest
            together.append((guest.dirty_bytes_per_s + guest.dma_bytes_per_s) / MIB)
            errors.append(float(guest.errors))
    asked = (CPU + DMA) / MIB
    return [
        Row("dirtied by guest and device", "MiB/s", tuple(together), must=0.9 * asked, note=f"{asked:.0f} asked"),
        Row("guest errors meanwhile", "errors", tuple(errors), must=0.0, better="lower", worst=True),
    ]
