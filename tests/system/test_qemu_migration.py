"""Real QEMU machines between real agents: the guest counts on at the other side, without a gap or a repeat."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from tests.qemu_guest.build import Guest
from tests.qemu_guest.serial import counts
from tests.system.attempts import DEADLINE, MIB, machine, migrated, policy, started
from tests.system.command import viaduct
from tests.system.processes import ended
from tests.system.qemu_machines import (
    MEMORY,
    SECTORS,
    bare,
    counted,
    guest_with_a_disk,
    image,
    offer,
    sectors,
    slow,
    specification,
    two_hosts,
)
from tests.system.site import Site
from vm_migration.api.v1 import source_pb2
from vm_migration.errors import MigrationError

pytestmark = pytest.mark.timeout(300)  # a kernel boots in most of them, without KVM

LIMIT_MS = 2000


@pytest.fixture(scope="module")
def writing_guest(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Guest:
    return guest_with_a_disk(pytestconfig, tmp_path_factory)


@pytest.fixture
def program(request: pytest.FixtureRequest, programs: dict[str, str]) -> str:
    return programs[str(request.param)]


@pytest.fixture(scope="module")
def shared_site(programs: dict[str, str]) -> Iterator[Site]:
    with two_hosts(lambda _folder: offer(*programs.values())) as site:
        yield site


async def test_a_stream_is_cancelled_at_any_moment_and_hurried_by_force(
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
        before = await counted(serial, before)
        assert ended(arriving.vmm.pid, DEADLINE)
        assert "STOPPED" not in site.states("host-a", uuid)
        # Nothing of it is in the way of the next one.
        attempt = await started(agents, uuid, "host-a", "host-b", slow())
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


@pytest.mark.parametrize("program", ["debian", "newer"], indirect=True)
async def test_a_guest_behind_a_viommu_counts_and_writes_on_at_the_other_host_and_only_there(
    site: Site, agents: Agents, writing_guest: Guest, tmp_path: Path, program: str
) -> None:
    """Over one connection, and back over several; with a disk that both hosts have."""
    serial, disk = tmp_path / "serial", image(tmp_path)
    async with machine(site, agents, specification(writing_guest, serial, binary=program, disk=disk)) as created:
        uuid, before = created.machine, await counted(serial)
        for source, destination, channels in (("host-a", "host-b", 1), ("host-b", "host-a", 2)):
            processes = site.instance(source, uuid)
            report = await migrated(agents, uuid, source, destination, policy(limit_ms=LIMIT_MS, streams=channels))
            assert report.outcome == "completed", report
            assert (report.pages_verified, report.pages_mismatched) == (MEMORY // 4096, 0)
            assert (report.verified_by, list(report.warnings)) == ("full", [])
            assert report.downtime.downtime_ms > 0
            before = await counted(serial, before + SECTORS)  # so that every sector was looked at again
            assert ended(processes.vmm.pid, 0)
            assert ended(processes.host.pid, 0)
            assert site.machines_at(source) == []
            assert site.states(source, uuid)[-4:] == ["OUTGOING", "STOPPED", "RELEASED", "RETIRED"]
            assert site.states(destination, uuid)[-4:] == ["PREPARED", "READY", "ACTIVATING", "ACTIVE"]
        # Nobody else writes to it, on whichever host: QEMU's own lock of the image is a second fence.
        other = specification(writing_guest, tmp_path / "other", binary=program, disk=disk, name="other")
        with pytest.raises(MigrationError, match=r"write.* lock"):
            await agents.create_machine("host-b", other.to_json(), other.memory.size)
        await agents.act_on_machine("host-a", uuid, "pause")
        last = counts(serial)[-1]
        await agents.act_on_machine("host-a", uuid, "destroy")
    written = sectors(disk)
    assert max(written) in (last, last + 1), "what the guest said it had written is there"
    assert sorted(written) == list(range(max(written) - SECTORS + 1, max(written) + 1))


async def test_a_disk_of_which_nobody_says_that_it_is_shared_stays_with_its_machine(
    site: Site, agents: Agents, tmp_path: Path
) -> None:
    disk = image(tmp_path)
    async with machine(site, agents, bare(disk=disk, shared=False)) as created:
        before = site.written()
        refused = await viaduct(site, "migrate", "bare", "--to", "host-b")
        assert refused.exit_code == 3
        assert "disk-not-shared" in refused.out
        assert str(disk) in refused.out
        assert len(refused.err.splitlines()) <= 2
        assert site.written() == before
        assert site.machines_at("host-b") == []
        assert (await agents.get_machine("host-a", created.machine)).run_state == "running"


async def test_what_a_guest_writes_is_sampled_by_its_qemu_and_its_migration_forecast_from_that(
    site: Site, agents: Agents, guest: Guest, tmp_path: Path
) -> None:
    serial = tmp_path / "serial"
    async with machine(site, agents, specification(guest, serial)) as created:
        before = await counted(serial)
        shown = await viaduct(site, "machine", "dirty-rate", "real", "--window", "300ms", "--json")
        document = shown.document
        rate = document["dirty_bytes_per_s"]
        assert (document["window_ms"], document["sampled"], document["exact"]) == (1000.0, True, False), shown.err
        assert isinstance(rate, float)
        assert MIB <= rate <= 64 * MIB, "it writes 4 MiB/s, and its kernel something"
        question = source_pb2.CheckOutgoingRequest(
            machine=created.machine, destination="host-b", policy=policy(), measure_ms=1000
        )
        asked = await agents.check_outgoing("host-a", question)
        assert asked.expected.dirty_bytes_per_s >= MIB
        assert "dirty-rate-assumed" not in {each.code for each in asked.warnings}
        question.measure_ms = 0
        asked = await agents.check_outgoing("host-a", question)
        assert "dirty-rate-assumed" in {each.code for each in asked.warnings}
        await counted(serial, before)
