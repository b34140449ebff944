"""A destination agent that stands still, a second one in its place, and what the first does when it comes back."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from orchestrator.agents import Agents
from tests.system.attempts import DEADLINE, endless, machine, migrated, require_whole, specification, started, works
from tests.system.daemons import Daemon, environment
from tests.system.processes import ended
from tests.system.site import Site
from vm_migration.loopback.ports import free_ports


@contextlib.contextmanager
def second_agent(site: Site, folder: Path) -> Iterator[Daemon]:
    """Yield another destination agent of host-b, with its journals and machines, at a port of its own."""
    first = site.dest("host-b")
    (port,) = free_ports(1)
    text = site.configuration("host-b").read_text()
    configuration = folder / "second.toml"
    configuration.write_text(text.replace(f'dest = "{site.addresses["host-b"].dest}"', f'dest = "127.0.0.1:{port}"'))
    daemon = Daemon("second", [first.command[0], "--config", str(configuration)], folder)
    try:
        yield daemon
    finally:
        daemon.stop()


async def test_an_agent_that_was_replaced_while_it_stood_still_does_nothing_and_ends(
    site: Site, agents: Agents, tmp_path: Path
) -> None:
    async with machine(site, agents, specification("replaced")) as created:
        uuid = created.machine
        attempt = await started(agents, uuid, "host-a", "host-b", endless())
        await attempt.in_the_middle()
        arriving, frozen = site.instance("host-b", uuid), site.dest("host-b")
        pid = frozen.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with second_agent(site, tmp_path) as second:
                second.start()
                assert ended(arriving.vmm.pid, DEADLINE)
                assert ended(arriving.host.pid, DEADLINE)
                assert site.states("host-b", uuid) == ["PREPARED", "DISCARDED"]
                report = await attempt.end()
                assert (report.outcome, report.state) == ("failed", "ABORTED")
                os.kill(pid, signal.SIGCONT)
                assert ended(pid, DEADLINE)
                assert "another agent of this host has started since" in frozen.log
        finally:
            frozen.kill()
            frozen.start()
        assert site.machines_at("host-b") == []
        report = await migrated(agents, uuid, "host-a", "host-b")
        require_whole(report)
        await works(site, "host-b", uuid, report.guest.jobs_done)


async def test_a_second_agent_at_the_same_address_touches_nothing(site: Site, agents: Agents) -> None:
    """It opened every journal, and gave up what was arriving, before it found that it could not listen."""
    async with machine(site, agents, specification("undisturbed")) as created:
        attempt = await started(agents, created.machine, "host-a", "host-b", endless())
        await attempt.in_the_middle()
        written = site.written()
        command = list(site.dest("host-b").command)
        refused = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=DEADLINE, env=environment()
        )
        assert refused.returncode == 3
        assert "Another process listens" in refused.stderr
        assert site.dest("host-b").running
        assert {path: data for path, data in site.written().items() if "/host-b/" in path} == {
            path: data for path, data in written.items() if "/host-b/" in path
        }
        await agents.cancel("host-a", attempt.key)
        assert (await attempt.end()).outcome == "cancelled"
