"""How soon another orchestrator drives what was in flight, when the one that led was killed, or frozen.

Two orchestrators over one etcd, and a machine that moves there and back: in every run the leader is struck in pre-copy.
What counts ends when an order of tuning, given to the site's addresses as a command gives it, is answered, and the row
is the other's: it leads, has taken the attempt over in its next term, and steers it. Then the attempt is forced to its
end; one that does not complete is lost. A double run is seen by asking the destination's machine first and the source's
next: if both say that the guest runs, it did on both; a run in which no look saw it anywhere fails. A leader that was
frozen is woken up before the attempt ends.
"""

import asyncio
import contextlib
import signal
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.double_run import watched
from benchmarks.figures import Row
from orchestrator.admission import Order
from orchestrator.agents import Agents
from orchestrator.attempt import Attempt, Outcome
from orchestrator.desk import Desk
from orchestrator.policy import MigrationPolicy
from orchestrator.site import open_desk
from tests.system.attempts import in_the_middle, machine, specification, works
from tests.system.daemons import Daemon
from tests.system.site import Site
from tests.system.two_orchestrators import Pair, two_orchestrators
from vm_migration.daemon.configuration import load
from vm_migration.errors import MigrationError
from vm_migration.machine.errors import MachineError
from vm_migration.machine.software import SoftwareMachine

RUNS: Final = 20
KILLED: Final = "orchestrator that led killed: until the other steers its attempt"
FROZEN: Final = "orchestrator that led frozen: until the other steers its attempt"
LOST: Final = "attempts of these lost"
DOUBLED: Final = "guests of these that ran on two hosts"
LIMIT_MS: Final = 5000.0
_HOSTS: Final = ("host-a", "host-b")
_LONGEST: Final = 60.0
_LOOK: Final = 0.02
_SLOW: Final = MigrationPolicy(downtime_limit_ms=100, max_bandwidth_bytes_per_s=24 << 20, compression="none")


@dataclass(frozen=True)
class Run:
    """What came of one run."""

    took_ms: float
    frozen: bool
    completed: bool
    doubled: bool


async def measure(runs: int) -> list[Row]:
    """Return milliseconds until the other steers, and how many attempts were lost, and guests seen on two hosts."""
    found = await _runs(max(runs, RUNS))
    killed = tuple(one.took_ms for one in found if not one.frozen)
    frozen = tuple(one.took_ms for one in found if one.frozen)
    lost = float(sum(not one.completed for one in found))
    doubled = float(sum(one.doubled for one in found))
    return [
        Row(KILLED, "ms", killed, must=LIMIT_MS, better="lower", worst=True),
        Row(FROZEN, "ms", frozen, must=LIMIT_MS, better="lower", worst=True),
        Row(LOST, "attempts", (lost,), must=0, better="lower", worst=True),
        Row(DOUBLED, "guests", (doubled,), must=0, better="lower", worst=True),
    ]


async def _runs(runs: int) -> list[Run]:
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        site = Site(Path(name), dict.fromkeys(_HOSTS, "512MiB"))
        with contextlib.closing(site), two_orchestrators(site) as pair:
            site.run(*_HOSTS)
            configuration = load(pair.operator, {}, insecure=False)
            async with (
                site.agents() as agents,
                machine(site, agents, specification("bench")) as created,
                open_desk(configuration) as desk,
            ):
                scene = _Scene(site, pair, agents, desk, created.machine)
                return [await scene.struck(number) for number in range(runs)]


@dataclass
class _Scene:
    """The site, with the machine at the first host before runs with even numbers."""

    site: Site
    pair: Pair
    agents: Agents
    desk: Desk
    machine: str

    async def struck(self, number: int) -> Run:
        """Move the machine, strike the leader on the way; every second one is frozen, the others are killed."""
        source, destination = _HOSTS if number % 2 == 0 else _HOSTS[::-1]
        frozen = number % 4 >= 2
        first = await self.pair.led()
        daemon = self.pair.daemons[first]
        attempt = await self.desk.submit(Order("bench", destination, _SLOW))
        await in_the_middle(self.agents, source, self.machine)
        async with watched(partial(self._running, source, destination)) as seen:
            begun = time.monotonic()
            _strike(daemon, freeze=frozen)
            try:
                await self._steered(attempt, self.pair.other(first))
                took = time.monotonic() - begun
            finally:
                _wake(daemon, frozen=frozen)
            ended = await self._ended(attempt)
            if ended.outcome == Outcome.COMPLETED:
                await works(self.site, destination, self.machine)
        if not frozen:
            await asyncio.to_thread(daemon.start)
        return Run(1000 * took, frozen, ended.outcome == Outcome.COMPLETED, seen.doubled)

    async def _steered(self, attempt: Attempt, other: str) -> None:
        async with asyncio.timeout(_LONGEST):
            while True:
                with contextlib.suppress(MigrationError):  # nobody leads yet, or whoever does has not heard of it
                    row = await self.desk.tune(attempt, downtime_limit_ms=200, max_bandwidth_bytes_per_s=0)
                    if row.driver == other:
                        return
                await asyncio.sleep(_LOOK)  # asked as a command asks

    async def _ended(self, attempt: Attempt) -> Attempt:
        await self.desk.force(attempt)
        async with asyncio.timeout(_LONGEST):
            while not (row := await self.desk.attempt(attempt.attempt)).ended:  # noqa: ASYNC110 - asked as a command asks
                await asyncio.sleep(_LOOK)
        return row

    async def _running(self, source: str, destination: str) -> int:
        """Say on how many of the two the guest runs: in this order, one that moves meanwhile counts once."""
        return sum([await self._runs_at(host) for host in (destination, source)])

    async def _runs_at(self, host: str) -> bool:
        port = SoftwareMachine(self.site.directory(host, self.machine).path)
        try:
            return (await port.describe()).run_state == "running"
        except (MachineError, OSError):  # it has no process there
            return False
        finally:
            await port.close()


def _strike(daemon: Daemon, *, freeze: bool) -> None:
    if freeze:
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGSTOP)
    else:
        daemon.kill()


def _wake(daemon: Daemon, *, frozen: bool) -> None:
    if frozen and daemon.process is not None:
        daemon.process.send_signal(signal.SIGCONT)
