"""How long a guest stands still when its machine gets a new process, and what many updates in a row leave behind.

A machine with an accelerator at work is handed from process to process, as docs/update.md draws it, without agents.
Standstill is from the guest's last step in the old process to its first in the new one, on the host's one clock. RAM
is there to the last page where a row says populated, and a hole but for what the guest works on where it says sparse.
The guest checks every answer of its device by its number and in order, so that one that is lost, comes twice or is
wrong counts as an error; at the end it comes to rest, which it cannot while a job is unanswered. Beside it the same
machine is moved between two hosts on loopback, by agents.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.figures import Row
from benchmarks.footprint import Footprint, daemon_of, footprint, settled
from benchmarks.rig import GIB, MIB, Rig, rig
from benchmarks.updated_machine import document_of, updated_machine
from orchestrator.attempt import Attempt
from orchestrator.demo.scene import HOSTS
from orchestrator.policy import MigrationPolicy

LIMIT_MS: Final = 50.0
MOST_OF_BASE: Final = 1.2
MANY: Final = 200
BASE: Final = "1 GiB populated"
SIZES: Final = {BASE: (GIB, True), "8 GiB populated": (8 * GIB, True), "1 TiB sparse": (1 << 40, False)}
STANDSTILL: Final = "update: standstill, {}"
RATIO: Final = "update: standstill at {} against " + BASE
BY_AGENTS: Final = f"viaduct update: standstill, {BASE}, by its agents and journal"
MOVED: Final = f"update's yardstick: {BASE} moved over loopback, standstill"
EXECUTED: Final = f"update in mode exec: standstill, {BASE}"
WRONG: Final = "update: jobs of these lost, done twice or wrong"
MANY_WRONG: Final = f"{MANY} updates in a row: jobs lost, done twice or wrong"
MANY_DESCRIPTORS: Final = f"{MANY} updates in a row: descriptors more, in both processes"
MANY_MEMORY: Final = f"{MANY} updates in a row: anonymous memory more, in both processes"
MANY_PROCESSES: Final = f"{MANY} updates in a row: processes left beside the machine's two"
MANY_BY_AGENTS_DESCRIPTORS: Final = f"{MANY} updates in a row by agents: descriptors more, in the source agent"
MANY_BY_AGENTS_MEMORY: Final = f"{MANY} updates in a row by agents: anonymous memory more, in the source agent"
MANY_BY_AGENTS_CHILDREN: Final = f"{MANY} updates in a row by agents: children more, of the source agent"
_STANDSTILLS: Final = tuple(STANDSTILL.format(what) for what in SIZES)
_RATIOS: Final = tuple(RATIO.format(what) for what in SIZES if what != BASE)
PAGE_ROWS: Final[Mapping[str, Sequence[str]]] = {
    "update": (
        *_STANDSTILLS,
        *_RATIOS,
        WRONG,
        EXECUTED,
        BY_AGENTS,
        MOVED,
        MANY_WRONG,
        MANY_DESCRIPTORS,
        MANY_MEMORY,
        MANY_PROCESSES,
        MANY_BY_AGENTS_DESCRIPTORS,
        MANY_BY_AGENTS_MEMORY,
        MANY_BY_AGENTS_CHILDREN,
    )
}
"""As benchmarks.reliability_page has them: by the name that `--only` knows, the rows in their order."""
PUBLISHED: Final = (
    "| Cloud Hypervisor: a local migration, memory by descriptor, an idle guest of 4 GiB | | 50 ms | |"
    " its authors' figure, 2022-01-13, for the whole of it; 3000 ms with memory copied:"
    " [issue 3566](https://github.com/cloud-hypervisor/cloud-hypervisor/issues/3566) |"
)
"""What another hypervisor's authors have said of theirs; nobody has measured it here."""
_FEWEST: Final = 10
_OF_ONE_MACHINE: Final = 2
"""Processes, whose parent their agent may be."""
_SETTLED: Final = 10
"""Updates after which what both processes have is taken for what they need."""
_SETTLED_AGENT: Final = 80
"""The same of an agent, which remembers the last 64 attempts."""
_AGENT_MIB: Final = 8.0


async def measure(runs: int) -> list[Row]:
    """Return the rows."""
    runs = max(runs, _FEWEST)
    with tempfile.TemporaryDirectory(prefix="viaduct-bench-") as name:
        folder = Path(name)
        taken: dict[str, tuple[float, ...]] = {}
        executed: tuple[float, ...] = ()
        wrong = 0
        for what, (size, populated) in SIZES.items():
            async with updated_machine(folder, size, populated=populated) as machine:
                await machine.update()  # the first finds the interpreter's files cold
                taken[what] = tuple([await machine.update() for _ in range(runs)])
                if what == BASE:
                    executed = tuple([machine.replace_image() for _ in range(runs)])
                wrong += await machine.wrong()
        many = await _many(folder)
    by_agents = await _many_by_agents()
    updated, moved = await _by_agents(runs)
    base = median(taken[BASE])
    return [
        *(Row(STANDSTILL.format(what), "ms", taken[what], must=LIMIT_MS, better="lower") for what in SIZES),
        *(
            Row(RATIO.format(what), "x", tuple(one / base for one in taken[what]), must=MOST_OF_BASE, better="lower")
            for what in SIZES
            if what != BASE
        ),
        Row(WRONG, "jobs", (float(wrong),), must=0, better="lower"),
        Row(EXECUTED, "ms", executed),
        Row(BY_AGENTS, "ms", updated, must=LIMIT_MS, better="lower"),
        Row(MOVED, "ms", moved),
        *many,
        *by_agents,
    ]


async def _many(folder: Path) -> list[Row]:
    async with updated_machine(folder, 256 * MIB, populated=False) as machine:
        for _ in range(_SETTLED):
            await machine.update()
        before = footprint(machine.own)
        for _ in range(MANY):
            await machine.update()
        after = footprint(machine.own)
        wrong = float(await machine.wrong())
        left = float(len(machine.processes()) - 2)
    return [
        Row(MANY_WRONG, "jobs", (wrong,), must=0, better="lower"),
        Row(MANY_DESCRIPTORS, "descriptors", (float(after.descriptors - before.descriptors),), must=0, better="lower"),
        Row(MANY_MEMORY, "MiB", ((after.anonymous_bytes - before.anonymous_bytes) / MIB,), must=4, better="lower"),
        Row(MANY_PROCESSES, "processes", (left,), must=0, better="lower"),
    ]


async def _many_by_agents() -> list[Row]:
    """Return what an agent holds after many updates that it made, more than after those that it settled by."""
    async with rig(document_of(256 * MIB), insecure=False) as site:
        agent = daemon_of("viaduct-source-agent", site.folder / f"{HOSTS[0]}.toml")
        before = await _held_after(site, agent, _SETTLED_AGENT)
        after = await _held_after(site, agent, MANY)
    more = after.descriptors - before.descriptors, after.children - before.children
    memory = (after.anonymous_bytes - before.anonymous_bytes) / MIB
    return [
        Row(MANY_BY_AGENTS_DESCRIPTORS, "descriptors", (float(more[0]),), must=0, better="lower"),
        Row(MANY_BY_AGENTS_MEMORY, "MiB", (memory,), must=_AGENT_MIB, better="lower"),
        Row(MANY_BY_AGENTS_CHILDREN, "children", (float(more[1]),), must=0, better="lower"),
    ]


async def _held_after(site: Rig, agent: int, updates: int) -> Footprint:
    for _ in range(updates):
        _standstill(await site.update())
    return await settled(agent, _OF_ONE_MACHINE)


async def _by_agents(runs: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the standstills of a machine that a site updates, and of the same one that it moves, turn by turn."""
    async with rig(document_of(GIB), insecure=False) as site:
        updated, moved = [], []
        for _ in range(runs):
            updated.append(_standstill(await site.update()))
            moved.append(_standstill(await site.move(MigrationPolicy())))
    return tuple(updated), tuple(moved)


def _standstill(attempt: Attempt) -> float:
    if attempt.report is None or attempt.outcome != "completed":
        raise RuntimeError(f"The machine was not updated or moved: {attempt.outcome} {attempt.reason}")
    return attempt.report.downtime.downtime_ms
