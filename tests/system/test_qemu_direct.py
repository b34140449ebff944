"""Real QEMU machines that connect to each other by themselves, set up by agents: the course of those that are carried.

Both hosts' machines print into one file: two guests that run would each write the counts of the other once more.
"""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.agents import Agents
from source_agent.destination_link import DestinationLink
from tests.qemu_guest.build import Guest
from tests.system.attempts import DEADLINE, Attempt, begin, machine, migrated, policy, started
from tests.system.processes import ended
from tests.system.qemu_machines import MEMORY, counted, folders_of_tls, offer, specification, two_hosts
from tests.system.site import Site
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.errors import MigrationError, Refused
from vm_migration.link.address import split_address

pytestmark = pytest.mark.timeout(300)  # a kernel boots in most of them, without KVM

SLOW = policy(limit_ms=4000, bandwidth=4 << 20, transport="direct")
"""Under which the first pass takes seconds."""


def direct_over(channels: int) -> types_pb2.Policy:
    return policy(limit_ms=4000, transport="direct", streams=channels)


@pytest.fixture(scope="module")
def shared_site(programs: dict[str, str]) -> Iterator[Site]:
    with two_hosts(lambda _folder: offer(*programs.values())) as site:
        yield site


def listening(pid: int) -> list[int]:
    """Return the TCP ports at which a process listens."""
    found = psutil.Process(pid).net_connections("tcp")
    return [each.laddr[1] for each in found if each.status == psutil.CONN_LISTEN]


async def test_a_guest_counts_on_and_one_that_is_called_off_leaves_nothing_but_that(
    site: Site, agents: Agents, guest: Guest, tmp_path: Path
) -> None:
    serial = tmp_path / "serial"
    async with machine(site, agents, specification(guest, serial)) as created:
        uuid, before = created.machine, await counted(serial)
        processes = site.instance("host-a", uuid)
        with pytest.raises(Refused, match="nobody seals it"):
            await begin(agents, uuid, "host-a", "host-b", policy(transport="sealed"))
        await given_up_where_a_stranger_comes_first(site, await begin(agents, uuid, "host-a", "host-b", SLOW))
        attempt = await begin(agents, uuid, "host-a", "host-b", direct_over(1))
        await attempt.prepare()
        await refused_to_others(site, attempt)
        assert ports_of(site, "host-b", uuid) == []  # the source has not asked for one
        _, configured = split_address(site.addresses["host-b"].dest)
        assert listening(site.dest("host-b").pid) == [configured], "what is for pages is not opened for it"
        await attempt.start()
        report = await attempt.end()
        assert report.outcome == "completed", report.error.message
        assert (report.transport, report.verified_by, report.pages_mismatched) == ("direct", "full", 0)
        assert report.pages_verified == MEMORY // 4096
        assert report.downtime.downtime_ms > 0
        await counted(serial, before)
        assert ended(processes.vmm.pid, 0)
        assert site.states("host-a", uuid)[-4:] == ["OUTGOING", "STOPPED", "RELEASED", "RETIRED"]
        assert site.states("host-b", uuid)[-4:] == ["PREPARED", "READY", "ACTIVATING", "ACTIVE"]
        assert (ports_of(site, "host-b", uuid), folders_of_tls(site)) == ([], [])
        await called_off_in_the_middle(site, agents, uuid)
        before = await counted(serial, before)
        report = await migrated(agents, uuid, "host-b", "host-a", direct_over(2))  # nothing of it is in the way
        assert report.outcome == "completed", report.error.message
        await counted(serial, before)


def ports_of(site: Site, host: str, uuid: str) -> list[int]:
    """Return those at which a machine's process does."""
    return listening(site.instance(host, uuid).vmm.pid)


def port_for(site: Site, attempt: Attempt, host: str) -> tuple[DestinationLink, destination_pb2.ListenForStreamRequest]:
    """Return what a host asks for the port of an attempt with, and whom."""
    place, ticket, tls = site.addresses["host-b"].dest, attempt.prepared.ticket, site.identities[host]
    link = DestinationLink(host="host-b", control=place, bulk=place, tls=tls, attempt=attempt.key.attempt)
    return link, destination_pb2.ListenForStreamRequest(key=attempt.key, ticket=ticket, streams=1)


async def given_up_where_a_stranger_comes_first(site: Site, attempt: Attempt) -> None:
    """See that who says nothing at the port does not hold a QEMU up for long: it shakes hands in its main loop."""
    await attempt.prepare()
    link, request = port_for(site, attempt, "host-a")
    arriving = site.instance("host-b", attempt.key.machine)
    async with link:
        host, port = split_address((await link.listen_for_stream(request)).address)
    with socket.create_connection((host, port), DEADLINE):
        await asyncio.to_thread(ended, arriving.vmm.pid, DEADLINE)
    assert site.states("host-b", attempt.key.machine)[-1] == "DISCARDED"
    assert (await attempt.agents.cancel("host-a", attempt.key)).state == "ABORTED"


async def refused_to_others(site: Site, attempt: Attempt) -> None:
    """See that another host gets no port of an attempt, whatever it knows of it."""
    link, request = port_for(site, attempt, "host-c")
    async with link:
        with pytest.raises(MigrationError, match="is not the source of this attempt"):
            await link.listen_for_stream(request)


async def called_off_in_the_middle(site: Site, agents: Agents, uuid: str) -> None:
    """Have an attempt from host-b end in its middle, and see that nothing of it is left."""
    attempt = await started(agents, uuid, "host-b", "host-a", SLOW)
    await attempt.in_the_middle()
    arriving = site.instance("host-a", uuid)
    (port,) = ports_of(site, "host-a", uuid)
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as stranger:
        assert await asyncio.to_thread(stranger.recv, 1) == b"", "its source is there, who else comes is sent away"
    before = (await attempt.in_the_middle()).percent
    await attempt.until(lambda report: report.percent > before)
    assert (await agents.cancel("host-b", attempt.key)).state == "ABORTED"
    assert (await attempt.end()).outcome == "cancelled"
    assert ended(arriving.vmm.pid, DEADLINE)
    assert (site.states("host-b", uuid)[-1], folders_of_tls(site)) == ("ABORTED", [])


async def test_a_newer_qemu_s_guest_counts_on_over_several_connections_and_back_over_one(
    site: Site, agents: Agents, guest: Guest, tmp_path: Path, programs: dict[str, str]
) -> None:
    serial = tmp_path / "serial"
    async with machine(site, agents, specification(guest, serial, binary=programs["newer"])) as created:
        for source, destination, channels in (("host-a", "host-b", 2), ("host-b", "host-a", 1)):
            before = await counted(serial)
            report = await migrated(agents, created.machine, source, destination, direct_over(channels))
            assert report.outcome == "completed", report.error.message
            await counted(serial, before)
