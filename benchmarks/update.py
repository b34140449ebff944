"""How long a guest stands still when its machine gets a new process, and what many updates in a row leave behind.

A machine with an accelerator at work is handed from process to process, as docs/update.md draws it, without agents.
Standstill is from the guest's last step in the old process to its first in the new one, on the host's one clock. RAM
is there to the last page where a row says populated, and a hole but for what the guest works on where it says sparse.
The guest checks every answer of its device by its number and in order, so that one that is lost, comes twice or is
wrong counts as an error; at the end it comes to rest, which it cannot while a job is unanswered. Beside it the same
machine is moved between two hosts on loopback, by agents.
"""

import tempfile
from pathlib import Path
from typing import Final

from benchmarks.figures import Row
from benchmarks.rig import GIB, MIB, rig
from benchmarks.updated_machine import document_of, updated_machine
from orchestrator.policy import MigrationPolicy

LIMIT_MS: Final = 50.0
MOST_OF_BASE: Final = 1.2
MANY: Final = 200
BASE: Final = "1 GiB populated"
SIZES: Final = {BASE: (GIB, True), "8 GiB populated": (8 * GIB, True), "1 TiB sparse": (1 << 40, False)}
STANDSTILL: Final = "update: standstill, {}"
RATIO: Final = "update: standstill at {} against " + BASE
MOVED: Final = f"update's yardstick: {BASE} moved over loopback, standstill"
WRONG: Final = "update: jobs of these lost, done twice or wrong"
MANY_WRONG: Final = f"{MANY} updates in a row: jobs lost, done twice or wrong"
MANY_DESCRIPTORS: Final = f"{MANY} updates in a row: descriptors more, in both processes"
MANY_MEMORY: Final = f"{MANY} updates in a row: anonymous memory more, in both processes"
MANY_PROCESSES: Final = f"{MANY} updates in a row: processes left beside the machine's two"
_SETTLED: Final = 10
"""Updates after which what both processes have is taken for what they need."""


async def measure(runs: int) -> list[Row]:
    """Return the rows."""
    with tempfile.TemporaryDirectory(prefix="viaduct-bench-") as name:
        folder = Path(name)
        taken: dict[str, tuple[float, ...]] = {}
        wrong = 0
        for what, (size, populated) in SIZES.items():
            async with updated_machine(folder, size, populated=populated) as machine:
                await machine.update()  # the first finds the interpreter's files cold
                taken[what] = tuple([await machine.update() for _ in range(runs)])
                wrong += await machine.wrong()
        many = await _many(folder)
    moved = await _moved(runs)
    base = sorted(taken[BASE])[runs // 2]
    return [
        *(Row(STANDSTILL.format(what), "ms", taken[what], must=LIMIT_MS, better="lower") for what in SIZES),
        *(
            Row(RATIO.format(what), "x", tuple(one / base for one in taken[what]), must=MOST_OF_BASE, better="lower")
            for what in SIZES
            if what != BASE
        ),
        Row(WRONG, "jobs", (float(wrong),), must=0, better="lower"),
        Row(MOVED, "ms", moved),
        *many,
    ]


async def _many(folder: Path) -> list[Row]:
    async with updated_machine(folder, 256 * MIB, populated=False) as machine:
        for _ in range(_SETTLED):
            await machine.update()
        before = machine.footprint()
        for _ in range(MANY):
            await machine.update()
        after = machine.footprint()
        wrong = float(await machine.wrong())
        left = float(len(machine.processes()) - 2)
    return [
        Row(MANY_WRONG, "jobs", (wrong,), must=0, better="lower"),
        Row(MANY_DESCRIPTORS, "descriptors", (float(after[0] - before[0]),), must=0, better="lower"),
        Row(MANY_MEMORY, "MiB", ((after[1] - before[1]) / MIB,), must=4, better="lower"),
        Row(MANY_PROCESSES, "processes", (left,), must=0, better="lower"),
    ]


async def _moved(runs: int) -> tuple[float, ...]:
    async with rig(document_of(GIB), insecure=False) as site:
        taken = []
        for _ in range(runs):
            attempt = await site.move(MigrationPolicy())
            if attempt.report is None or attempt.outcome != "completed":
                raise RuntimeError(f"The machine did not move: {attempt.outcome} {attempt.reason}")
            taken.append(attempt.report.downtime.downtime_ms)
    return tuple(taken)
