"""Real QEMU machines between real agents: the guest counts on at the other side, without a gap or a repeat."""

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from tests.qemu_guest.build import Guest
from tests.system.attempts import DEADLINE, MIB, machine, migrated, policy, started
from tests.system.processes import ended
from tests.system.qemu_machines import MEMORY, OFFER, counted, guest_that_counts, specification
from tests.system.site import Site
from vm_migration.api.v1 import source_pb2, types_pb2

LIMIT_MS = 2000


@pytest.fixture(scope="module")
def guest(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Guest:
    return guest_that_counts(pytestconfig, tmp_path_factory)


@pytest.fixture(scope="module")
def qemu_site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder:
        site = Site(Path(folder), {"host-a": "1GiB", "host-b": "1GiB"}, hooks=OFFER)
        with contextlib.closing(site):
            yield site


@pytest.fixture
def site(qemu_site: Site) -> Iterator[Site]:
    qemu_site.run("host-a", "host-b")
    yield qemu_site
    left = qemu_site.remains_at_last()
    if left:
        qemu_site.close()
    assert left == []


@pytest.fixture
async def agents(site: Site) -> AsyncIterator[Agents]:
    async with site.agents() as agents:
        yield agents


@pytest.mark.parametrize("channels", [1, 2], ids=["one-connection", "multifd"])
async def test_a_guest_counts_on_at_the_other_host_and_only_there(
    site: Site, agents: Agents, guest: Guest, tmp_path: Path, channels: int
) -> None:
    serial = tmp_path / "serial"
    async with machine(site, agents, specification(guest, serial)) as created:
        uuid, processes = created.machine, site.instance("host-a", created.machine)
        before = await counted(serial)
        report = await migrated(agents, uuid, "host-a", "host-b", policy(limit_ms=LIMIT_MS, streams=channels))
        assert report.outcome == "completed", report
        assert (report.pages_verified, report.pages_mismatched) == (MEMORY // 4096, 0)
        assert report.verified_by == "full"
        assert report.downtime.downtime_ms > 0
        await counted(serial, before)
        assert ended(processes.vmm.pid, 0)
        assert ended(processes.host.pid, 0)
        assert site.machines_at("host-a") == []
        assert site.states("host-a", uuid) == ["OWNER", "OUTGOING", "STOPPED", "RELEASED", "RETIRED"]
        assert site.states("host-b", uuid) == ["PREPARED", "READY", "ACTIVATING", "ACTIVE"]


def slow(streams: int = 1) -> types_pb2.Policy:
    """Return a policy under which the first pass takes seconds."""
    return policy(limit_ms=100, bandwidth=4 * MIB, streams=streams)


async def test_a_cancelled_stream_leaves_the_guest_counting_where_it_was(
    site: Site, agents: Agents, guest: Guest, tmp_path: Path
) -> None:
    serial = tmp_path / "serial"
    async with machine(site, agents, specification(guest, serial)) as created:
        uuid, before = created.machine, await counted(serial)
        attempt = await started(agents, uuid, "host-a", "host-b", slow())
        await attempt.in_the_middle()
        arriving = site.instance("host-b", uuid)
        assert (await agents.cancel("host-a", attempt.key)).state == "ABORTED"
        assert (await attempt.end()).outcome == "cancelled"
        await counted(serial, before)
        assert ended(arriving.vmm.pid, DEADLINE)
        assert "STOPPED" not in site.states("host-a", uuid)
        # Nothing of it is in the way of the next one.
        report = await migrated(agents, uuid, "host-a", "host-b", policy(limit_ms=LIMIT_MS))
        assert report.outcome == "completed", report
        await counted(serial, before)


async def test_a_stream_that_is_slow_is_hurried_by_force(
    site: Site, agents: Agents, guest: Guest, tmp_path: Path
) -> None:
    serial = tmp_path / "serial"
    async with machine(site, agents, specification(guest, serial)) as created:
        uuid, before = created.machine, await counted(serial)
        attempt = await started(agents, uuid, "host-a", "host-b", slow())
        await attempt.in_the_middle()
        await agents.tune("host-a", source_pb2.TuneRequest(key=attempt.key, max_bandwidth_bytes_per_s=1 << 30))
        await agents.force("host-a", attempt.key)
        report = await attempt.end()
        assert report.outcome == "completed", report
        await counted(serial, before)


@pytest.mark.parametrize("side", ["source", "dest"])
async def test_an_agent_that_is_killed_while_the_stream_runs_costs_the_attempt_and_no_count(
    site: Site, agents: Agents, guest: Guest, tmp_path: Path, side: str
) -> None:
    serial = tmp_path / "serial"
    async with machine(site, agents, specification(guest, serial)) as created:
        uuid, before = created.machine, await counted(serial)
        attempt = await started(agents, uuid, "host-a", "host-b", slow())
        await attempt.in_the_middle()
        arriving = site.instance("host-b", uuid)
        victim = site.source("host-a") if side == "source" else site.dest("host-b")
        victim.kill()
        if side == "dest":
            assert (await attempt.end()).state == "ABORTED"
        before = await counted(serial, before)
        victim.start()
        async with asyncio.timeout(DEADLINE):
            while site.states("host-a", uuid)[-1] != "ABORTED":  # noqa: ASYNC110 - a journal has no event
                await asyncio.sleep(0.02)
        await counted(serial, before)
        assert ended(arriving.vmm.pid, DEADLINE)
        report = await migrated(agents, uuid, "host-a", "host-b", policy(limit_ms=LIMIT_MS))
        assert report.outcome == "completed", report
        await counted(serial, before)


async def test_a_destination_whose_qemu_dies_ends_the_attempt_while_the_guest_runs(
    site: Site, agents: Agents, guest: Guest, tmp_path: Path
) -> None:
    serial = tmp_path / "serial"
    async with machine(site, agents, specification(guest, serial)) as created:
        uuid, before = created.machine, await counted(serial)
        attempt = await started(agents, uuid, "host-a", "host-b", slow(streams=2))
        await attempt.in_the_middle()
        os.kill(site.instance("host-b", uuid).vmm.pid, signal.SIGKILL)
        report = await attempt.end()
        assert (report.outcome, report.state) == ("failed", "ABORTED")
        assert "STOPPED" not in site.states("host-a", uuid)
        await counted(serial, before)
