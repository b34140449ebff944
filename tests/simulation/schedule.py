"""One schedule: faults while machines move, then everything heals, and what must be true is looked at.

::

    boot -> orders and faults, at most BUSY seconds -> heal, restart -> quiet -> the end is judged
         -> one more migration, without faults, must complete
"""

import asyncio
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from tests.simulation.drivers import Orchestrator, order
from tests.simulation.endings import Ending, judged, left_to_an_operator, settled, stands
from tests.simulation.faults import Plan, drawn
from tests.simulation.injection import Injector
from tests.simulation.invariants import Violation
from tests.simulation.virtual_loop import Deadlock, Livelock
from tests.simulation.world import HOSTS, Line, World, captured_logs, remembered_reports

BUSY: Final = 90.0
"""Seconds for which orders come and faults strike."""
_QUIET: Final = 400.0
"""Seconds after everything healed by which the site has settled, or stands where only a person helps."""
_STILL: Final = 140.0
"""Seconds without any change after which none comes: above every patience of the agents and of a driver."""
_LAST: Final = 60.0


@dataclass
class Seen:
    """What came of a schedule."""

    plan: Plan
    ending: str = ""
    failure: str = ""
    rule: str = ""
    trace: list[Line] = field(default_factory=list)
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    weathered: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    runs: int = 0
    rolled_back: bool = False
    """An agent refused a journal that was rolled back."""


def run(plan: Plan | int) -> Seen:
    """Run one schedule, given by its plan or its seed."""
    if isinstance(plan, int):
        plan = drawn(plan)
    seen = Seen(plan)
    world = World(plan.seed, witness=plan.witness)
    try:
        with captured_logs(world), remembered_reports():
            world.loop.run_until_complete(_Schedule(world, plan, seen).run())
    except Violation as broken:
        seen.failure, seen.rule = str(broken), broken.rule
    except (Livelock, Deadlock) as stuck:
        seen.failure, seen.rule = f"{type(stuck).__name__}: {stuck}", type(stuck).__name__.lower()
    finally:
        seen.trace, seen.steps = list(world.trace), world.loop.steps
        seen.runs = world.invariants.runs_seen
        seen.rolled_back = any("journal-rolled-back" in line.facts.values() for line in seen.trace)
        world.close()
    return seen


class _Schedule:
    def __init__(self, world: World, plan: Plan, seen: Seen) -> None:
        self._world: Final = world
        self._plan: Final = plan
        self._seen: Final = seen
        self._draw: Final = random.Random(plan.seed)  # noqa: S311 - a schedule, not a secret
        self._injector: Final = Injector(world, plan, self._second)
        self._extra: Orchestrator | None = None

    async def run(self) -> None:
        world = self._world
        await world.boot()
        first = world.add_orchestrator("orchestrator-1")
        first.start()
        await world.until(lambda: first.ready, 10)
        world.stepped = self._injector.stepped
        end = world.loop.time() + BUSY
        for _ in range(self._plan.orders):
            await self._order(first, end)
        await asyncio.sleep(min(5.0, max(0.0, end - world.loop.time())))
        world.said("world", "everything heals")
        self._injector.heal()
        await self._quiet()
        if (fenced := left_to_an_operator(world)) is not None:
            world.said("world", f"an operator decides, without {fenced}")
            world.operator.fence(fenced)
            await asyncio.sleep(10.0)
            await self._quiet()
        ending = judged(world)
        await asyncio.sleep(0)  # a rule that is broken ends it here
        self._seen.ending = str(ending)
        world.said("world", f"settled: {ending}")
        if ending is Ending.RUNS:
            await self._last(first)
        self._count()

    async def _quiet(self) -> None:
        """Wait until the site has settled, or nothing changes any more."""
        world = self._world
        end, stood, since = world.loop.time() + _QUIET, stands(world), world.loop.time()
        while not settled(world) and world.loop.time() < min(end, since + _STILL):
            await asyncio.sleep(1.0)
            now = stands(world)
            if now != stood:
                stood, since = now, world.loop.time()

    async def _order(self, at: Orchestrator, end: float) -> None:
        """Ask for a migration to another host than the last, and wait for its end, though not for ever."""
        world = self._world
        attempt = str(uuid.UUID(int=self._draw.getrandbits(128), version=4))
        here = [each.host.name for each in world.running()] or [HOSTS[0]]
        target = self._draw.choice([name for name in HOSTS if name != here[0]])
        world.said("world", f"order to {target}", attempt=attempt[:8])
        if await world.until(lambda: at.ready, min(20.0, end - world.loop.time())):
            at.migrate(order(world.machine, target, attempt, force_on_timeout=self._plan.forced))
        patience = min(self._draw.choice((3.0, 20.0, 40.0)), end - world.loop.time())
        await world.until(lambda: self._over(at, attempt), patience)
        await asyncio.sleep(self._draw.choice((0.0, 0.2, 2.0)))

    def _over(self, at: Orchestrator, attempt: str) -> bool:
        return any(row.ended for row in at.rows() if row.attempt == attempt)

    async def _last(self, at: Orchestrator) -> None:
        """One more migration, which nothing disturbs; ordered again where an older order came in between."""
        world, why = self._world, ""
        for _ in range(3):
            source = world.running()[0].host.name
            others = [name for name in HOSTS if name != source]
            # A host whose journal was rolled back may wait for a person.
            target = next((name for name in others if name not in world.invariants.rolled_back), others[0])
            attempt = str(uuid.UUID(int=self._draw.getrandbits(128), version=4))
            world.said("world", f"last order to {target}", attempt=attempt[:8])
            at.migrate(order(world.machine, target, attempt))
            over = await world.until(partial(self._over, at, attempt), 5.0)
            if not over and self._entered(at, attempt):
                over = await world.until(partial(self._over, at, attempt), _LAST)
            await world.until(lambda: settled(world), 30.0, every=0.5)
            running = [each.host.name for each in world.running()]
            if over and running == [target]:
                return
            row = next((each for each in at.store.attempts(everything=True) if each.attempt == attempt), None)
            why = f"runs at {running}; {row.phase if row else 'no row'}: {row.error if row else ''}"
            if row is not None or not running:
                break
        world.invariants.broken("next-migration", why)
        await asyncio.sleep(0)

    def _entered(self, at: Orchestrator, attempt: str) -> bool:
        return any(row.attempt == attempt for row in at.rows())

    def _second(self) -> Orchestrator:
        if self._extra is None:
            world = self._world
            store = world.orchestrators[0].store if self._plan.second_store_shared else None
            self._extra = world.add_orchestrator("orchestrator-2", store)
            self._extra.start()
        return self._extra

    def _count(self) -> None:
        self._seen.hits.update(self._injector.hits)
        self._seen.weathered.update(self._injector.weathered)
        for each in self._world.orchestrators:
            for row in each.store.attempts(everything=True):
                self._seen.outcomes[str(row.outcome or "open")] += 1
