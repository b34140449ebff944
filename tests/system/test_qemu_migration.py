"""Real QEMU machines between real agents: the guest counts on at the other side, without a gap or a repeat."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from tests.qemu_guest.build import Guest
from tests.qemu_guest.newer import newer_qemu
from tests.qemu_guest.serial import counts
from tests.system.attempts import DEADLINE, machine, migrated, policy, started
from tests.system.processes import ended
from tests.system.qemu_machines import MEMORY, PROGRAM, SLOW, counted, guest_that_counts, offer, specification
from tests.system.site import Site
from vm_migration.api.v1 import source_pb2

LIMIT_MS = 2000


@pytest.fixture(scope="module")
def guest(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Guest:
    return guest_that_counts(pytestconfig, tmp_path_factory)


@pytest.fixture(scope="module")
def programs(pytestconfig: pytest.Config) -> dict[str, str]:
    """Return 7.2, which tells a stream's connections apart by the order in which they come, and one that does not."""
    cache = pytestconfig.cache
    assert cache is not None
    return {"debian": PROGRAM, "newer": str(newer_qemu(cache.mkdir("newer-qemu")))}


@pytest.fixture
def program(request: pytest.FixtureRequest, programs: dict[str, str]) -> str:
    return programs[str(request.param)]


@pytest.fixture(scope="module")
def qemu_site(programs: dict[str, str]) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder:
        site = Site(Path(folder), {"host-a": "1GiB", "host-b": "1GiB"}, hooks=offer(*programs.values()))
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


@pytest.mark.parametrize("program", ["debian", "newer"], indirect=True)
async def test_a_guest_counts_on_at_the_other_host_and_only_there_over_one_connection_and_back_over_several(
    site: Site, agents: Agents, guest: Guest, tmp_path: Path, program: str
) -> None:
    serial = tmp_path / "serial"
    async with machine(site, agents, specification(guest, serial, binary=program)) as created:
        uuid = created.machine
        for source, destination, channels in (("host-a", "host-b", 1), ("host-b", "host-a", 2)):
            processes, before = site.instance(source, uuid), await counted(serial)
            report = await migrated(agents, uuid, source, destination, policy(limit_ms=LIMIT_MS, streams=channels))
            assert report.outcome == "completed", report
            assert (report.pages_verified, report.pages_mismatched) == (MEMORY // 4096, 0)
            assert (report.verified_by, list(report.warnings)) == ("full", [])
            assert report.downtime.downtime_ms > 0
            await counted(serial, before)
            assert ended(processes.vmm.pid, 0)
            assert ended(processes.host.pid, 0)
            assert site.machines_at(source) == []
            assert site.states(source, uuid)[-4:] == ["OUTGOING", "STOPPED", "RELEASED", "RETIRED"]
            assert site.states(destination, uuid)[-4:] == ["PREPARED", "READY", "ACTIVATING", "ACTIVE"]


async def test_a_stream_is_cancelled_at_any_moment_and_hurried_by_force(
    site: Site, agents: Agents, guest: Guest, tmp_path: Path
) -> None:
    serial = tmp_path / "serial"
    async with machine(site, agents, specification(guest, serial)) as created:
        uuid, before = created.machine, await counted(serial)
        attempt = await started(agents, uuid, "host-a", "host-b", SLOW)
        await attempt.in_the_middle()
        arriving = site.instance("host-b", uuid)
        assert (await agents.cancel("host-a", attempt.key)).state == "ABORTED"
        assert (await attempt.end()).outcome == "cancelled"
        before = await counted(serial, before)
        assert ended(arriving.vmm.pid, DEADLINE)
        assert "STOPPED" not in site.states("host-a", uuid)
        # Nothing of it is in the way of the next one.
        attempt = await started(agents, uuid, "host-a", "host-b", SLOW)
        await attempt.in_the_middle()
        await agents.tune("host-a", source_pb2.TuneRequest(key=attempt.key, max_bandwidth_bytes_per_s=1 << 30))
        await agents.force("host-a", attempt.key)
        report = await attempt.end()
        assert report.outcome == "completed", report
        before = await counted(serial, before)
        # One that stands still arrives so, and goes on there.
        await agents.act_on_machine("host-b", uuid, "pause")
        stood = counts(serial)
        report = await migrated(agents, uuid, "host-b", "host-a", policy(limit_ms=LIMIT_MS))
        assert (report.outcome, report.downtime.downtime_ms) == ("completed", 0), report
        assert (await agents.get_machine("host-a", uuid)).run_state == "paused"
        assert counts(serial) == stood
        await agents.act_on_machine("host-a", uuid, "resume")
        await counted(serial, before)
