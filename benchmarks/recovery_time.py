"""How soon everything is as before when a daemon was killed, and started again at once as a service manager does.

A source agent is killed in pre-copy, and while the guest stands still; what counts is the guest: how long until a whole
second begins in which it writes at 95 % of its rate before. An orchestrator is killed while its attempt is in pre-copy;
what counts is its first state message for that attempt, as a subscriber of mosquitto receives it.
"""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from benchmarks.figures import Row
from benchmarks.guest_rate import watching
from orchestrator.admission import Order
from orchestrator.agents import Agents
from orchestrator.policy import MigrationPolicy
from orchestrator.site import open_desk
from tests.system.attempts import endless, in_the_middle, machine, policy, specification, started
from tests.versions.mixed_site import ASKS, HOSTS, ORCHESTRATOR, MixedSite
from tests.versions.programs import NEWER
from tests.vm_migration.daemon.mqtt_brokers import Mosquitto
from vm_migration.daemon.configuration import load
from vmm.assembly.specification import MachineSpecification

SHARE: Final = 0.95
LIMIT_MS: Final = 2000.0
_LONGEST: Final = 30.0
_EVERY: Final = 0.01


async def measure(runs: int) -> list[Row]:
    """Return milliseconds for each fault, one a run."""
    return [
        Row("killed source agent, in pre-copy: until the guest writes as before", "ms", await _in_precopy(runs)),
        Row("killed source agent, guest stopped: until the guest writes as before", "ms", await _in_standstill(runs)),
        Row(
            "killed orchestrator: until its first state message", "ms", await _first_message(runs),
            must=LIMIT_MS, better="lower", worst=True,
        ),
    ]  # fmt: skip


def _machine() -> MachineSpecification:
    """Return a machine whose guest writes every page of a second once: its counter then tells what was asked for."""
    return specification("bench", memory_size="128MiB", guest_working_set="48MiB", guest_pattern="sequential")


async def _in_precopy(runs: int) -> tuple[float, ...]:
    async with _site() as site, site.agents() as agents, machine(site, agents, _machine()) as created:
        return tuple([await _killed_in_precopy(site, agents, created.machine) for _ in range(runs)])


async def _killed_in_precopy(site: MixedSite, agents: Agents, machine: str) -> float:
    attempt = await started(agents, machine, *HOSTS, endless())
    await attempt.in_the_middle()
    async with watching(site.directory(HOSTS[0], machine).path) as watch:
        fault = await _killed_and_started(site)
        back = await watch.until_back(SHARE * watch.before(fault), fault, _LONGEST)
    await _over(site, machine)
    return 1000 * (back - fault)


async def _in_standstill(runs: int) -> tuple[float, ...]:
    """The destination's hook before READY holds the guest in its pause until the kill."""
    with tempfile.TemporaryDirectory(prefix="viaduct-bench-") as name:
        folder = Path(name)
        waits = f"sh -c 'touch {folder}/held; while [ ! -e {folder}/go ]; do sleep 0.05; done'"
        async with (
            _site(hooks=f"[hooks]\nbefore_ready = [{json.dumps(waits)}]\n") as site,
            site.agents() as agents,
            machine(site, agents, _machine()) as created,
        ):
            return tuple([await _killed_in_standstill(site, agents, folder, created.machine) for _ in range(runs)])


async def _killed_in_standstill(site: MixedSite, agents: Agents, folder: Path, machine: str) -> float:
    held, go = folder / "held", folder / "go"
    async with watching(site.directory(HOSTS[0], machine).path) as watch:
        rate = SHARE * watch.before(time.monotonic())
        await started(agents, machine, *HOSTS, policy(limit_ms=5000))
        await _until(held.exists)
        assert site.states(HOSTS[0], machine)[-1] == "STOPPED"
        fault = await _killed_and_started(site)
        back = await watch.until_back(rate, fault, _LONGEST)
    go.touch()
    await _over(site, machine)
    held.unlink()
    go.unlink()
    return 1000 * (back - fault)


async def _first_message(runs: int) -> tuple[float, ...]:
    with tempfile.TemporaryDirectory(prefix="viaduct-bench-") as name:
        broker = Mosquitto(Path(name))
        await broker.start()
        try:
            async with (
                _site(broker=broker.running.url) as site,
                site.agents() as agents,
                machine(site, agents, _machine()) as created,
            ):
                site.become(NEWER, ORCHESTRATOR)
                uuid = created.machine
                return tuple([await _restarted_orchestrator(site, agents, broker, uuid) for _ in range(runs)])
        finally:
            await broker.stop()


async def _restarted_orchestrator(site: MixedSite, agents: Agents, broker: Mosquitto, machine: str) -> float:
    """Kill and start the daemon in an attempt's pre-copy; return the milliseconds to its first word of it."""
    terms = MigrationPolicy(downtime_limit_ms=100, max_bandwidth_bytes_per_s=24 << 20)
    async with open_desk(load(site.configuration(ASKS), {}, insecure=False)) as desk:
        attempt = await desk.submit(Order("bench", HOSTS[1], terms))
        await in_the_middle(agents, HOSTS[0], machine)
        site.orchestrator.kill()
        async with broker.running.reader() as reader:
            begun = time.monotonic()
            starting = asyncio.create_task(asyncio.to_thread(site.orchestrator.start), name="start the orchestrator")
            topic = f"migration/{attempt.attempt}/state"
            # What the broker kept for new subscribers was said by the life before.
            await reader.until(lambda told: any(one.topic.endswith(topic) and not one.retain for one in told))
            received = time.monotonic()
            await starting
        await desk.cancel(attempt)
    await _over(site, machine)
    return 1000 * (received - begun)


@contextlib.asynccontextmanager
async def _site(*, broker: str = "", hooks: str = "") -> AsyncIterator[MixedSite]:
    """Run two hosts; nothing of them is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        site = MixedSite(Path(name), dict.fromkeys(HOSTS, "512MiB"), broker=broker, hooks=hooks)
        with contextlib.closing(site):
            site.host_becomes(NEWER, *HOSTS)
            yield site


async def _killed_and_started(site: MixedSite) -> float:
    """Kill the source agent and start it at once; return when it was killed, on the monotonic clock."""
    fault = time.monotonic()
    site.source(HOSTS[0]).kill()
    await asyncio.to_thread(site.source(HOSTS[0]).start)
    return fault


async def _over(site: MixedSite, machine: str) -> None:
    """Wait until the attempt has ended at the source and nothing of it is left at the destination."""
    await _until(lambda: site.states(HOSTS[0], machine)[-1] == "ABORTED" and not site.machines_at(HOSTS[1]))


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(_LONGEST):
        while not holds():  # noqa: ASYNC110 - files have no event here
            await asyncio.sleep(_EVERY)
