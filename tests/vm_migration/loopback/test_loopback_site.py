"""A site on loopback: what it writes, and how its processes start and end."""

import sys
from pathlib import Path

import pytest

from tests.processes import started_for
from vm_migration.daemon.configuration import load
from vm_migration.errors import InternalError
from vm_migration.link.tls import TlsFiles
from vm_migration.loopback.daemons import Daemon, running
from vm_migration.loopback.site import Addresses, SitePlan, agent_text, site_text, tls_text

HOSTS = ("host-a", "host-b")
READY = "import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
READY += "s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); time.sleep(600)"


def test_what_it_writes_is_a_configuration(tmp_path: Path) -> None:
    addresses = Addresses(
        "127.0.0.1:1",
        {h: f"127.0.0.1:{n}2" for n, h in enumerate(HOSTS, 1)},
        {h: f"127.0.0.1:{n}3" for n, h in enumerate(HOSTS, 1)},
    )
    files = TlsFiles(tmp_path / "ca.pem", tmp_path / "a.pem", tmp_path / "a.key")
    plan = SitePlan("test", HOSTS, 2 << 30, broker="mqtt://127.0.0.1:9", orchestrator=True)
    path = tmp_path / "host-a.toml"
    path.write_text(site_text(tmp_path, plan, addresses) + tls_text(files) + agent_text(tmp_path, "host-a", 2 << 30))
    configuration = load(path, {})
    assert (configuration.site.orchestrator, configuration.tls_files()) == ("127.0.0.1:1", files)
    assert configuration.agent is not None
    assert configuration.agent.memory_budget >= 2 << 30


async def test_daemons_run_while_the_context_is_entered(tmp_path: Path) -> None:
    daemons = [Daemon(name, [sys.executable, "-c", READY, str(tmp_path)]) for name in ("one", "two")]
    async with running(tmp_path, daemons):
        assert len(started_for(tmp_path)) == 2
    assert started_for(tmp_path) == []


async def test_a_daemon_that_ends_at_once_takes_the_others_with_it(tmp_path: Path) -> None:
    daemons = [
        Daemon("good", [sys.executable, "-c", READY, str(tmp_path)]),
        Daemon("bad", [sys.executable, "-c", "raise SystemExit('No disk is left')", str(tmp_path)]),
    ]
    with pytest.raises(ExceptionGroup) as errors:
        async with running(tmp_path, daemons):
            pytest.fail("it is not ready")
    assert errors.group_contains(InternalError, match="bad ended with 1 before it was ready: No disk is left")
    assert started_for(tmp_path) == []


async def test_what_a_daemon_left_behind_is_ended(tmp_path: Path) -> None:
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {READY!r}, {str(tmp_path)!r}])"
    async with running(tmp_path, [Daemon("parent", [sys.executable, "-c", f"{start}; {READY}"])]):
        assert len(started_for(tmp_path)) == 2
    assert started_for(tmp_path) == []
