"""What a site of a thousand hosts asks of its orchestrator: fifty orders at once, 200 attempts in flight, and a kill.

::

    50 orders  ->  planned  ->  160 more  ->  200 in flight, one of each host that is emptied, every transition told
               ->  SIGKILL, start  ->  all taken up  ->  cancelled: every machine is where its evacuation says
    25 orders of 4 at once  ->  200 open, half of them made ready beside those that send  ->  SIGKILL, start  ->  ...

In flight is what was begun at its source and has not ended. A run is a site of its own: real daemon, real broker, real
certificates; the hosts are simulated by one more process on the same processors (benchmarks.scale.serving).
"""

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.figures import Row
from benchmarks.scale.fleet import Pace
from benchmarks.scale.site import Hosts, ScaleSite, certificates, names, scale_site
from benchmarks.scale.told import delays, in_flight, misplaced, open_at, percentile, taken_up, transitions
from orchestrator.attempt import ENDS, Phase
from orchestrator.desk import Desk
from orchestrator.evacuation.order import EvacuationOrder
from orchestrator.evacuation.plan import Kind
from orchestrator.evacuation.view import EvacuationView
from orchestrator.site import open_desk
from vm_migration.daemon.configuration import load
from vm_migration.errors import Refused

HOSTS: Final = 1000
MACHINES: Final = 10
PLANNED_AT_ONCE: Final = 50
IN_FLIGHT: Final = 200
BESIDE: Final = 20
"""Hosts that are emptied beside as many as are to be in flight: between two of its machines none of a host is."""
SENT_AT_ONCE: Final = 4
OPEN_AT_ONCE: Final = 8
"""Of a host that is emptied four at a time: as many again are made ready meanwhile (orchestrator.evacuation.plan)."""
MOST_RUNS: Final = 3

_OF: Final = f"{HOSTS} hosts, {HOSTS * MACHINES} machines: "
PLANNED: Final = f"{_OF}evacuation of {PLANNED_AT_ONCE} hosts planned"
PLACED: Final = f"{_OF}a first machine of each of those has its destination"
FLYING: Final = f"{_OF}{IN_FLIGHT} attempts in flight, since the first order"
RESIDENT: Final = f"{_OF}the orchestrator's resident memory at its most"
TOLD: Final = f"{IN_FLIGHT} attempts in flight, all sending: a transition's state message, 99 of 100"
BUSY: Final = f"{IN_FLIGHT} attempts in flight, all sending: processor time of the orchestrator"
TAKEN_UP: Final = f"orchestrator killed with {IN_FLIGHT} attempts in flight, all sending: all taken up and told"
TAKEN_UP_OPEN: Final = (
    f"orchestrator killed with {IN_FLIGHT} attempts open, half of them made ready: all taken up and told"
)
LEFT: Final = f"{_OF}machines that are not where their evacuation says, or moved twice"
PAGE_ROWS: Final[Mapping[str, Sequence[str]]] = {
    "scale": (PLANNED, PLACED, FLYING, RESIDENT, TOLD, BUSY, TAKEN_UP, TAKEN_UP_OPEN, LEFT),
}
"""As benchmarks.reliability_page has them: by the name that `--only` knows, the rows in their order."""
_UNITS: Final = {RESIDENT: "MiB", BUSY: "% of one CPU", LEFT: "machines"}
_MUST: Final = {PLANNED: 2000.0, RESIDENT: 300.0, TOLD: 250.0, TAKEN_UP: 10_000.0, TAKEN_UP_OPEN: 10_000.0, LEFT: 0.0}
_LONGEST: Final = 300.0
_EVERY: Final = 0.25


@dataclass(frozen=True)
class Size:
    """How much of everything there is."""

    hosts: int = HOSTS
    machines: int = MACHINES
    planned: int = PLANNED_AT_ONCE
    in_flight: int = IN_FLIGHT
    pace: Pace = field(default_factory=Pace)

    @property
    def emptied(self) -> Sequence[str]:
        """The hosts that send one machine at a time."""
        return names(self.hosts)[: self.in_flight + BESIDE]

    @property
    def emptied_fast(self) -> Sequence[str]:
        """The hosts that send several at a time, after those."""
        first = len(self.emptied)
        return names(self.hosts)[first : first + self.in_flight // OPEN_AT_ONCE]


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
        self._resident = 0.0

    async def figures(self) -> dict[str, float]:
        begun, size = time.time(), self._size
        first, others = size.emptied[: size.planned], size.emptied[size.planned :]
        planned = await self._ordered(first, parallel=1) - begun
        await self._ordered(others, parallel=1)
        await self._until(lambda: self._placed(first))
        placed = max(self._first_states(first)) - begun
        await self._until(self._enough)
        flying, used = time.time(), self._site.cpu_seconds()
        await self._until(self._in_the_middle)
        busy = 100 * (self._site.cpu_seconds() - used) / (time.time() - flying)
        killed = time.time()
        taken = await self._taken_up()
        misplaced_first = await self._cancelled()
        await self._ordered(size.emptied_fast, parallel=SENT_AT_ONCE)
        await self._until(self._enough)
        taken_open = await self._taken_up()
        return {
            PLANNED: 1000 * planned,
            PLACED: 1000 * placed,
            FLYING: 1000 * (self._flying_since() - begun),
            TOLD: 1000 * self._told(killed),
            BUSY: busy,
            TAKEN_UP: 1000 * taken,
            TAKEN_UP_OPEN: 1000 * taken_open,
            LEFT: float(misplaced_first + await self._cancelled()),
            RESIDENT: self._resident,
        }

    async def _ordered(self, hosts: Sequence[str], *, parallel: int) -> float:
        """Order all of them to be emptied at once, and return when the last order was answered with its plan."""
        orders = [EvacuationOrder(Kind.EVACUATE, host, parallel=parallel) for host in hosts]
        views = await asyncio.gather(*(self._desk.evacuations.submit(order) for order in orders))
        answered = time.time()
        assert sum(len(view.moves) for view in views) >= len(hosts) * self._size.machines
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

    def _enough(self) -> bool:
        return in_flight(self._site.happened).at(time.time()) >= self._size.in_flight

    def _flying_since(self) -> float:
        """Return when there were enough in flight for the first time."""
        flying = in_flight(self._site.happened)
        return next(at for at, count in zip(flying.times, flying.counts, strict=True) if count >= self._size.in_flight)

    def _in_the_middle(self) -> bool:
        """Say whether half as many as are in flight have ended since, and enough are."""
        ended = sum(one.what in ENDS for one in self._site.happened)
        return ended >= self._size.in_flight // 2 and self._enough()

    async def _taken_up(self) -> float:
        """Kill the daemon and start it at once; return the seconds until all that is in flight was taken up anew."""
        self._note_memory()
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
        self._note_memory()
        assert at is not None
        return at - killed

    def _note_memory(self) -> None:
        self._resident = max(self._resident, self._site.resident_mib(most=True))

    async def _cancelled(self) -> int:
        """Cancel all evacuations and wait for their ends; return how many machines are not where they say."""
        async with asyncio.timeout(_LONGEST):
            views = await self._views()
            await asyncio.gather(*(self._cancel(view) for view in views if not view.ended))
            while not all(view.ended for view in views):
                await asyncio.sleep(1.0)  # asked as a command asks
                views = await self._views()
        self._site.look()
        arrived = Counter(one.attempt for one in self._site.happened if one.what == Phase.COMPLETED)
        return sum(misplaced(move, arrived) for view in views for move in view.moves)

    async def _views(self) -> Sequence[EvacuationView]:
        return await self._desk.evacuations.all(everything=True)

    async def _cancel(self, view: EvacuationView) -> None:
        with contextlib.suppress(Refused):  # it has ended meanwhile
            await self._desk.evacuations.cancel(view)

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
