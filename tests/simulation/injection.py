"""Making the faults of a plan happen, and counting where they hit."""

import errno
import random
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from tests.simulation.drivers import Orchestrator, order
from tests.simulation.faults import Fault, Kind, Plan
from tests.simulation.hosts import Host, Side
from tests.simulation.network import Weather
from tests.simulation.world import HOSTS, World
from vm_migration.handover.memory_disk import Snapshot
from vm_migration.handover.record import Record
from vm_migration.handover.states import LEAVING, State

_SOURCE_STATES: Final = LEAVING | {State.RETIRED, State.ABORTED, State.RECLAIMED, State.OWNER}


class Injector:
    """Strikes a world as its plan says."""

    def __init__(self, world: World, plan: Plan, second: Callable[[], Orchestrator]) -> None:
        self.hits: Final[Counter[tuple[str, str]]] = Counter()
        """(state, kind) -> how often a fault of that kind struck there."""
        self.weathered: Final[Counter[str]] = Counter()
        """Messages lost, late or doubled."""
        self._world: Final = world
        self._left: Final = list(plan.faults)
        self._seen: Final[Counter[State]] = Counter()
        self._second: Final = second
        self._snapshots: Final[dict[str, list[Snapshot]]] = {name: [] for name in HOSTS}
        self._rolls_back = any(each.kind in (Kind.ROLL_BACK_SOURCE, Kind.ROLL_BACK_DEST) for each in plan.faults)
        self._over = False
        self._source = HOSTS[0]
        self._destination = HOSTS[1]
        world.network.noted = self._note

    def stepped(self, host: Host, record: Record) -> None:
        """A record became durable: arm what strikes there."""
        if self._over:
            return
        self._learn(host, record)
        if self._rolls_back:
            self._snapshots[host.name].append(host.disk.snapshot())
        self._seen[record.state] += 1
        for fault in list(self._left):
            if fault.at is record.state and fault.nth <= self._seen[record.state]:
                self._left.remove(fault)
                loop = self._world.loop
                loop.at_step(loop.steps + fault.steps, partial(self._strike, fault))

    def heal(self) -> None:
        """End everything that lasts, and strike no more."""
        self._over = True
        world = self._world
        world.network.weather = Weather()
        world.network.heal()
        for host in world.hosts.values():
            host.wake_replaced()
            host.disk.capacity = None
            host.disk.failures.clear()
            for life in host.lives.values():
                life.disk.die_at(0, lambda: None)
            for process in host.machines.processes.values():
                process.silent_until = 0.0
            host.restore("source")
            host.restore("dest")
        for each in world.orchestrators:
            each.restore()

    def _learn(self, host: Host, record: Record) -> None:
        """Take note of who plays which part in the attempt of a record."""
        if not record.peer or record.peer == host.name:
            return
        if record.state in _SOURCE_STATES:
            self._source, self._destination = host.name, record.peer
        else:
            self._source, self._destination = record.peer, host.name

    def _note(self, kind: str, what: str) -> None:
        self.weathered[kind] += 1
        self._world.said("network", f"{kind}: {what}")

    def _strike(self, fault: Fault) -> None:
        if self._over:
            return
        self._world.said("FAULT", str(fault), source=self._source, destination=self._destination)
        if not fault.lead:
            self.hits[fault.at, fault.kind] += 1
        source, destination = self._world.hosts[self._source], self._world.hosts[self._destination]
        name = fault.kind.name
        host = destination if name.endswith("_DEST") or "_DEST_" in name else source
        self._at_host(fault, host, random.Random(fault.seed))  # noqa: S311 - a schedule, not a secret

    def _at_host(self, fault: Fault, host: Host, draw: random.Random) -> None:  # noqa: C901, PLR0912 - one row a kind
        side: Side = "source" if "SOURCE" in fault.kind.name else "dest"
        match fault.kind:
            case Kind.KILL_SOURCE_AGENT | Kind.KILL_DEST_AGENT:
                host.kill(side)
                self._later(fault, partial(self._restore_agent, host, side))
            case Kind.KILL_SOURCE_AT_DISK | Kind.KILL_DEST_AT_DISK:
                if host.alive(side):
                    life = host.lives[side]
                    life.disk.die_at(draw.randrange(1, 7), partial(host.end, life))
                    self._later(fault, partial(self._restore_agent, host, side))
            case Kind.FREEZE_SOURCE_AGENT | Kind.FREEZE_DEST_AGENT:
                host.freeze(side)
                self._later(fault, partial(host.thaw, side))
            case Kind.REPLACE_SOURCE_AGENT | Kind.REPLACE_DEST_AGENT:
                host.replace(side)
                self._later(fault, host.wake_replaced)
            case Kind.KILL_MACHINE_SOURCE | Kind.KILL_MACHINE_DEST:
                self._end_machine(host)
            case Kind.SILENT_MACHINE_SOURCE | Kind.SILENT_MACHINE_DEST:
                for process in host.machines.processes.values():
                    process.silent_until = self._world.loop.time() + fault.seconds
            case Kind.POWER_SOURCE | Kind.POWER_DEST:
                self._lose_power(host, draw)
                self._later(fault, partial(self._restore_host, host))
            case Kind.FENCE_SOURCE | Kind.FENCE_DEST:
                self._lose_power(host, draw)
                wait = draw.choice((1.0, 8.0, 25.0))
                self._world.loop.call_later(wait, self._unless_over, partial(self._world.operator.fence, host.name))
                self._world.loop.call_later(wait + 15.0, self._unless_over, partial(self._restore_host, host))
            case Kind.FSYNC_SOURCE | Kind.FSYNC_DEST | Kind.WRITE_SOURCE | Kind.WRITE_DEST:
                first = host.disk.steps + draw.randrange(1, 4)
                for step in range(first, first + draw.choice((1, 1, 2, 4))):
                    host.disk.failures[step] = errno.EIO
            case Kind.FULL_SOURCE | Kind.FULL_DEST:
                host.disk.capacity = 0
                self._later(fault, partial(setattr, host.disk, "capacity", None))
            case Kind.ROLL_BACK_SOURCE | Kind.ROLL_BACK_DEST:
                self._roll_back(host, draw)
                self._later(fault, partial(self._restore_host, host))
            case Kind.PARTITION | Kind.PARTITION_ONE_WAY:
                self._partition(fault, draw)
            case Kind.WEATHER:
                self._world.network.weather = draw.choice(
                    (Weather(loss=0.15), Weather(twice=0.4), Weather(late=0.4), Weather(0.05, 0.2, 0.2))
                )
                self._later(fault, self._clear_up)
            case _:
                self._at_orchestrator(fault, draw)

    def _at_orchestrator(self, fault: Fault, draw: random.Random) -> None:
        world = self._world
        first = world.orchestrators[0]
        match fault.kind:
            case Kind.KILL_ORCHESTRATOR:
                first.kill()
                self._later(fault, first.restore)
            case Kind.FREEZE_ORCHESTRATOR:
                first.freeze()
                self._later(fault, first.restore)
            case Kind.RECOVER:
                world.operator.recover()
            case Kind.SECOND_ORCHESTRATOR:
                second = self._second()
                target = draw.choice([name for name in HOSTS if name != self._source])
                attempt = str(uuid.UUID(int=draw.getrandbits(128), version=4))
                world.loop.call_later(0.2, second.migrate, order(world.machine, target, attempt))
            case Kind.CANCEL | Kind.FORCE:
                for each in world.orchestrators:
                    for row in each.store.attempts():
                        (each.cancel if fault.kind is Kind.CANCEL else each.force)(row.attempt)
            case _:
                raise AssertionError(f"Fault {fault} has no row")

    def _end_machine(self, host: Host) -> None:
        for process in host.machines.processes.values():
            if process.alive:
                self._world.invariants.killed.add(process.instance.name)
                process.end("killed by a fault")

    def _lose_power(self, host: Host, draw: random.Random) -> None:
        for process in host.machines.processes.values():
            self._world.invariants.killed.add(process.instance.name)
        how = draw.choice(("all", "none", "some"))
        host.lose_power(lambda _sector: how == "all" or (how == "some" and draw.random() < 0.5))

    def _roll_back(self, host: Host, draw: random.Random) -> None:
        """A snapshot of the host's disk is restored; its machines are gone, as after any start of a host."""
        snapshots = self._snapshots[host.name]
        self._lose_power(host, draw)
        if snapshots:
            host.disk.roll_back(snapshots[max(0, len(snapshots) - 1 - draw.randrange(1, 5))])
            self._world.invariants.rolled_back.add(host.name)
            self._world.said(host.name, "journal rolled back")

    def _partition(self, fault: Fault, draw: random.Random) -> None:
        network = self._world.network
        names = [*HOSTS, *(each.name for each in self._world.orchestrators)]
        pairs = [(self._source, self._destination)] if draw.random() < 0.6 else []
        pairs = pairs or [(draw.choice(HOSTS), name) for name in draw.sample(names, draw.choice((1, 2, len(names))))]
        for one, other in pairs:
            if one == other:
                continue
            forth, back = draw.choice(((True, False), (False, True))) if fault.kind is not Kind.PARTITION else (1, 1)
            if forth:
                network.block(one, other)
            if back:
                network.block(other, one)
        self._later(fault, network.heal)

    def _clear_up(self) -> None:
        self._world.network.weather = Weather()

    def _restore_agent(self, host: Host, side: Side) -> None:
        if host.name not in self._world.network.off and not host.alive(side):
            host.start(side)

    def _restore_host(self, host: Host) -> None:
        host.restore("source")
        host.restore("dest")

    def _later(self, fault: Fault, action: Callable[[], object]) -> None:
        self._world.loop.call_later(fault.seconds, self._unless_over, action)

    def _unless_over(self, action: Callable[[], object]) -> None:
        if not self._over:
            action()
