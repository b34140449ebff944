"""What a site of a thousand hosts asks of its orchestrator: fifty are emptied at once, and it is killed in the middle.

::

    50 orders  ->  planned  ->  200 and more in flight, every transition told  ->  SIGKILL, start  ->  all taken up
               ->  every machine elsewhere, once

A run is a site of its own: real daemon, real broker, real certificates; the hosts are simulated by one more process on
the same processors (benchmarks.scale.serving).
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.figures import Row
from benchmarks.scale.fleet import Pace
from benchmarks.scale.site import Hosts, ScaleSite, certificates, names, scale_site
from benchmarks.scale.told import delays, in_flight, open_at, percentile, taken_up, transitions
from orchestrator.attempt import ENDS, Outcome
from orchestrator.desk import Desk
from orchestrator.evacuation.order import EvacuationOrder
from orchestrator.evacuation.plan import Kind
from orchestrator.site import open_desk
from vm_migration.daemon.configuration import load

HOSTS: Final = 1000
MACHINES: Final = 10
EMPTIED: Final = 50
PARALLEL: Final = 3
IN_FLIGHT: Final = 200
MOST_RUNS: Final = 3

_OF: Final = f"{HOSTS} hosts, {HOSTS * MACHINES} machines, {EMPTIED} hosts emptied: "
PLANNED: Final = f"{_OF}all orders planned"
PLACED: Final = f"{_OF}a first machine of each has its destination"
FLYING: Final = f"{_OF}{IN_FLIGHT} attempts in flight"
RESIDENT: Final = f"{_OF}the orchestrator's resident memory at its most"
TOLD: Final = f"{IN_FLIGHT} attempts in flight: a transition's state message, 99 of 100"
BUSY: Final = f"{IN_FLIGHT} attempts in flight: processor time of the orchestrator"
TAKEN_UP: Final = f"orchestrator killed with {IN_FLIGHT} attempts in flight: all taken up and told"
LEFT: Final = f"{_OF}machines that did not arrive elsewhere"
PAGE_ROWS: Final[Mapping[str, Sequence[str]]] = {
    "scale": (PLANNED, PLACED, FLYING, RESIDENT, TOLD, BUSY, TAKEN_UP, LEFT),
}
"""As benchmarks.reliability_page has them: by the name that `--only` knows, the rows in their order."""
_UNITS: Final = {RESIDENT: "MiB", BUSY: "% of one CPU", LEFT: "machines"}
_MUST: Final = {PLANNED: 2000.0, RESIDENT: 300.0, TOLD: 250.0, TAKEN_UP: 10_000.0, LEFT: 0.0}
_LONGEST: Final = 300.0
_EVERY: Final = 0.05


@dataclass(frozen=True)
class Size:
    """How much of everything there is."""

    hosts: int = HOSTS
    machines: int = MACHINES
    emptied: int = EMPTIED
    parallel: int = PARALLEL
    in_flight: int = IN_FLIGHT
    pace: Pace = field(default_factory=Pace)


async def measure(runs: int) -> list[Row]:
    """Return the rows, one value a run."""
    found = [await once(Size()) for _ in range(min(runs, MOST_RUNS))]
    return [
        Row(name, _UNITS.get(name, "ms"), tuple(one[name] for one in found), _MUST.get(name), "lower", worst=True)
        for name in PAGE_ROWS["scale"]
    ]


async def once(size: Size) -> dict[str, float]:
    """Return what one run came to, by the names of the rows."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        folder = Path(name)
        pki = await asyncio.to_thread(certificates, folder / "pki", size.hosts)
        async with (
            scale_site(folder, pki, Hosts(size.hosts, size.machines, size.pace)) as site,
            open_desk(load(site.operator, {}, insecure=False)) as desk,
        ):
            return await _Run(site, desk, size).figures()


class _Run:
    """One run over a site that has just started."""

    def __init__(self, site: ScaleSite, desk: Desk, size: Size) -> None:
        self._site = site
        self._desk = desk
        self._size = size

    async def figures(self) -> dict[str, float]:
        begun = time.time()
        emptied = names(self._size.hosts)[: self._size.emptied]
        planned = await self._ordered(emptied) - begun
        await self._until(lambda: self._placed(emptied))
        placed = max(self._first_states(emptied)) - begun
        await self._until(lambda: self._flying() >= self._size.in_flight)
        flying, used = time.time(), self._site.cpu_seconds()
        await self._until(self._in_the_middle)
        killed = time.time()
        busy = 100 * (self._site.cpu_seconds() - used) / (killed - flying)
        resident = self._site.resident_mib(most=True)
        taken = await self._taken_up()
        left = await self._left()
        return {
            PLANNED: 1000 * planned,
            PLACED: 1000 * placed,
            FLYING: 1000 * (flying - begun),
            RESIDENT: max(resident, self._site.resident_mib(most=True)),
            TOLD: 1000 * self._told(killed),
            BUSY: busy,
            TAKEN_UP: 1000 * taken,
            LEFT: float(left),
        }

    async def _ordered(self, hosts: Sequence[str]) -> float:
        """Order all of them to be emptied at once, and return when the last order was answered with its plan."""
        orders = [EvacuationOrder(Kind.EVACUATE, host, parallel=self._size.parallel) for host in hosts]
        views = await asyncio.gather(*(self._desk.evacuations.submit(order) for order in orders))
        answered = time.time()
        assert sum(len(view.moves) for view in views) == len(hosts) * self._size.machines
        return answered

    def _placed(self, hosts: Sequence[str]) -> bool:
        return len(self._first_states(hosts)) == len(hosts)

    def _first_states(self, hosts: Sequence[str]) -> list[float]:
        """Return when the first state of an attempt of each host was told; it names the destination."""
        first: dict[str, float] = {}
        for one in self._site.told:
            if one.document.source:
                first.setdefault(one.document.source, one.at)
        return [first[host] for host in hosts if host in first]

    def _flying(self) -> int:
        return in_flight(self._site.happened).at(time.time())

    def _in_the_middle(self) -> bool:
        """Say whether a tenth of the machines have arrived, and enough are in flight."""
        ended = sum(one.what in ENDS for one in self._site.happened)
        return ended >= self._size.emptied * self._size.machines // 10 and self._flying() >= self._size.in_flight

    async def _taken_up(self) -> float:
        """Kill the daemon and start it at once; return the seconds until all that is in flight was taken up anew."""
        killed = time.time()
        self._site.orchestrator.kill()
        flying = open_at(self._site.happened, killed)
        starting = asyncio.create_task(asyncio.to_thread(self._site.orchestrator.start), name="start the orchestrator")
        at: float | None = None

        def done() -> bool:
            nonlocal at
            at = taken_up(flying, self._site.happened, self._site.told, killed)
            return at is not None

        await self._until(done)
        await starting
        assert at is not None
        return at - killed

    async def _left(self) -> int:
        """Wait until all evacuations have ended, and return how many machines they did not move."""
        async with asyncio.timeout(_LONGEST):
            views = await self._desk.evacuations.all(everything=True)
            while not all(view.ended for view in views):
                await asyncio.sleep(1.0)  # asked as a command asks
                views = await self._desk.evacuations.all(everything=True)
        return sum(move.outcome is not Outcome.COMPLETED for view in views for move in view.moves)

    def _told(self, until: float) -> float:
        """Return how late the state messages were of what happened while enough were in flight."""
        self._site.look()
        flying = in_flight(self._site.happened)
        went = [
            one
            for one in transitions(self._site.happened, self._site.told)
            if one.at < until - 1.0 and flying.at(one.at) >= self._size.in_flight
        ]
        found = delays(went, self._site.told)
        missing = [one for one, delay in zip(went, found, strict=True) if delay is None]
        assert not missing, f"{len(missing)} transitions were never told, as {missing[0]}"
        return percentile([delay for delay in found if delay is not None], 0.99)

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(_LONGEST):
            while True:
                self._site.look()
                if holds():
                    return
                await asyncio.sleep(_EVERY)  # other processes write it
