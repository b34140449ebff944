"""The shipped units, run by a real systemd: what a service manager does to the daemons stops no machine."""

import json
import time
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TypedDict

import msgspec
import pytest

from tests.under_systemd.booted import SECONDS, Booted, booted
from vm_migration.machine.run_directory import Instance

pytestmark = pytest.mark.timeout(300)  # the first one boots, and every command and daemon is an interpreter


class Shown(TypedDict):
    """What is wanted of `viaduct machine show`."""

    machine: str
    guest: dict[str, int]


AGENTS = ("viaduct-source-agent", "viaduct-dest-agent")
DAEMONS = (*AGENTS, "viaduct-orchestrator")
CONFIGURATION = """
[site]
name = "trial"
store = "sqlite:///var/lib/viaduct/orchestrator.db"
orchestrator = "127.0.0.1:7000"
[host.host-a]
source = "127.0.0.1:7001"
dest = "127.0.0.1:7002"
[tls]
ca = "/etc/viaduct/pki/ca.pem"
certificate = "/etc/viaduct/pki/{who}.pem"
key = "/etc/viaduct/pki/{who}.key"
"""
AGENT = """
[agent]
host = "host-a"
memory_budget = "1GiB"
"""
LISTED_EMPTY = ["/etc/viaduct:", "/var/lib/viaduct:"]
OPERATOR = ("env", "VIADUCT_CONFIG=/root/viaduct.toml")
MACHINE = """
name = "guest"
memory.size = "64MiB"
[guest]
cpu_dirty_rate = "1MiB/s"
working_set = "1MiB"
[[device]]
name = "qat0"
model = "qat"
address = "00:04.0"
dma_rate = "1MiB/s"
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Booted]:
    """A host of a site of one, whose daemons run."""
    with booted() as machine:
        machine.run("install", "-d", "-o", "root", "-g", "viaduct", "-m", "750", "/etc/viaduct")
        machine.run("viaduct", "pki", "init", "--site", "trial", "--folder", "/root/pki")
        for name, role in {"host-a": "host", "orchestrator": "orchestrator", "me": "operator"}.items():
            machine.run("viaduct", "pki", "issue", name, "--role", role, "--folder", "/root/pki")
        machine.run("cp", "-r", "/root/pki", "/etc/viaduct/pki")
        machine.run("chown", "-R", "viaduct:viaduct", "/etc/viaduct/pki")
        machine.write("/etc/viaduct/viaduct.toml", CONFIGURATION.format(who="host-a") + AGENT)
        machine.write("/etc/viaduct/orchestrator.toml", CONFIGURATION.format(who="orchestrator"))
        machine.write("/root/viaduct.toml", CONFIGURATION.format(who="me").replace("/etc/viaduct/pki", "/root/pki"))
        machine.write("/root/guest.toml", MACHINE)
        machine.run("systemctl", "start", *DAEMONS)
        yield machine


@pytest.fixture(scope="module")
def guest(host: Booted) -> Iterator[Instance]:
    """A machine that runs, as its processes."""
    host.run(*OPERATOR, "viaduct", "machine", "create", "/root/guest.toml", "--host", "host-a")
    yield instance(host)
    host.run(*OPERATOR, "viaduct", "machine", "destroy", "guest")
    assert host.run("ls", "/run/viaduct/machines") == ""


@pytest.fixture
def updated(host: Booted) -> Iterator[str]:
    """Another machine that runs, by its UUID."""
    host.write("/root/updated.toml", MACHINE.replace('"guest"', '"updated"'))
    host.run(*OPERATOR, "viaduct", "machine", "create", "/root/updated.toml", "--host", "host-a")
    yield shown(host, "updated")["machine"]
    host.run(*OPERATOR, "viaduct", "machine", "destroy", "updated")


def instance(host: Booted, machine: str = "*") -> Instance:
    return msgspec.json.decode(
        host.run("sh", "-c", f"cat /run/viaduct/machines/{machine}/instance.json"), type=Instance
    )


def shown(host: Booted, name: str) -> Shown:
    found: Shown = json.loads(host.run(*OPERATOR, "viaduct", "machine", "show", name, "--json"))["machine"]
    return found


def unit_of(host: Booted, pid: int) -> str:
    lines = host.run("cat", f"/proc/{pid}/cgroup").splitlines()  # hierarchies of version 1 have numbers above 0
    return next(line.removeprefix("0::") for line in lines if line.startswith("0::"))


def jobs(host: Booted, name: str = "guest") -> int:
    done: int = shown(host, name)["guest"]["jobs_done"]
    return done


def serves_again(host: Booted, name: str) -> None:
    host.logged(f"{name}.service: Scheduled restart job")
    host.run("systemctl", "start", name)  # waits for the job that there is


def machine_runs_on(host: Booted, before: Instance, jobs_before: int) -> None:
    assert instance(host) == before
    works_on(host, "guest", jobs_before)


def works_on(host: Booted, name: str, jobs_before: int) -> None:
    until = time.monotonic() + SECONDS
    while jobs(host, name) <= jobs_before:
        assert time.monotonic() < until


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_is_started_when_it_serves_and_says_where(host: Booted, name: str) -> None:
    assert host.property(name, "ActiveState") == "active"
    assert "127.0.0.1:700" in host.property(name, "StatusText")
    assert host.property(name, "WatchdogUSec") == "30s"


def test_each_process_of_a_machine_is_a_unit_that_sees_no_network_and_no_key(host: Booted, guest: Instance) -> None:
    units = {unit_of(host, pid) for pid in (guest.vmm.pid, guest.host.pid)}
    assert len(units) == 2
    assert all(unit.startswith("/viaduct.slice/viaduct-machines.slice/viaduct-machine@") for unit in units)
    for pid in (guest.vmm.pid, guest.host.pid):
        inside = ("nsenter", "--target", str(pid), "--mount", "--net")
        assert host.run(*inside, "ls", "/etc/viaduct", "/var/lib/viaduct").split() == LISTED_EMPTY
        assert [line.split(":")[0].strip() for line in host.run("cat", f"/proc/{pid}/net/dev").splitlines()[2:]] == [
            "lo"
        ]


@pytest.mark.parametrize("verb", ["restart", "kill --signal=SIGKILL --kill-who=all"])
def test_a_machine_runs_on_while_its_agents_are_restarted(host: Booted, guest: Instance, verb: str) -> None:
    before = jobs(host)
    for name in AGENTS:
        host.run("systemctl", *verb.split(), name)
        if verb != "restart":
            serves_again(host, name)
    machine_runs_on(host, guest, before)


def test_a_machine_runs_on_while_nothing_of_viaduct_but_its_units_does(host: Booted, guest: Instance) -> None:
    before = jobs(host)
    host.run("systemctl", "stop", *DAEMONS, "viaduct-machine.socket")
    assert all(host.property(name, "ActiveState") == "inactive" for name in DAEMONS)
    host.run("systemctl", "daemon-reexec")
    host.run("systemctl", "start", *DAEMONS)
    machine_runs_on(host, guest, before)
    host.write("/root/second.toml", MACHINE.replace('"guest"', '"second"'))
    host.run(*OPERATOR, "viaduct", "machine", "create", "/root/second.toml", "--host", "host-a")
    host.run(*OPERATOR, "viaduct", "machine", "destroy", "second")


def test_an_updated_machine_has_a_unit_of_its_own_and_outlives_its_agents(host: Booted, updated: str) -> None:
    """The new process is started as any other one is: nothing of it belongs to the agent, or to the old one's unit."""
    before, done = instance(host, updated), jobs(host, "updated")
    former = unit_of(host, before.vmm.pid)
    host.run(*OPERATOR, "viaduct", "update", "updated")
    now = instance(host, updated)
    assert (now.host, now.vmm == before.vmm) == (before.host, False)
    unit = unit_of(host, now.vmm.pid)
    assert unit.startswith("/viaduct.slice/viaduct-machines.slice/viaduct-machine@")
    assert unit not in (former, unit_of(host, now.host.pid))
    assert host.property(PurePosixPath(unit).name, "MainPID") == str(now.vmm.pid)
    assert host.property(PurePosixPath(former).name, "ActiveState") == "inactive"
    inside = ("nsenter", "--target", str(now.vmm.pid), "--mount", "ls", "/etc/viaduct", "/var/lib/viaduct")
    assert host.run(*inside).split() == LISTED_EMPTY
    host.run(*OPERATOR, "viaduct", "update", "updated", "--mode", "exec")
    assert instance(host, updated) == now
    assert unit_of(host, now.vmm.pid) == unit
    assert host.property(PurePosixPath(unit).name, "MainPID") == str(now.vmm.pid)
    for verb in ("restart", "kill --signal=SIGKILL --kill-who=all"):
        host.run("systemctl", *verb.split(), "viaduct-source-agent")
    serves_again(host, "viaduct-source-agent")
    works_on(host, "updated", done)
    assert instance(host, updated) == now


@pytest.fixture
def impatient(host: Booted) -> Iterator[str]:
    """An agent whose silence is noticed soon, but not while this machine is merely busy."""
    name = "viaduct-source-agent"
    drop_in = f"/run/systemd/system/{name}.service.d/soon.conf"
    host.write(drop_in, "[Service]\nWatchdogSec=10\n")
    for verb in ("daemon-reload", f"restart {name}"):
        host.run("systemctl", *verb.split())
    yield name
    host.run("rm", drop_in)
    for verb in ("daemon-reload", f"restart {name}"):
        host.run("systemctl", *verb.split())


def test_a_frozen_agent_is_ended_and_comes_back_and_its_machine_runs_on(
    host: Booted, guest: Instance, impatient: str
) -> None:
    before = jobs(host)
    frozen = host.property(impatient, "MainPID")
    host.run("kill", "-STOP", frozen)
    host.logged(f"{impatient}.service: Watchdog timeout")
    serves_again(host, impatient)
    assert host.property(impatient, "MainPID") != frozen
    machine_runs_on(host, guest, before)
