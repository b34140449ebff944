"""What a person does with the site of deploy/compose.yaml, typed in the operator's container."""

import re
from collections import Counter

import pytest

from tests.deployment.deployment import CONTROL, HOSTS, MIGRATION, ORCHESTRATORS, PROJECT, Deployment, killed
from tests.deployment.links import counted, shaped
from tests.deployment.machine import AT_ONCE, PAGES, PATIENTLY, Machine, migrated
from tools.deploy.ingredients import ROOT

pytestmark = pytest.mark.usefixtures("whole")

USERFAULTFD = """
import ctypes, os
number = {'x86_64': 323, 'aarch64': 282}[os.uname().machine]
print(ctypes.CDLL(None).syscall(number, 1))
"""
SHAPED_BYTES_PER_S = 200e6 / 8
PROMETHEUS = ROOT / "deploy/grafana/prometheus.yml"
SCRAPE = """
import re, socket, ssl, sys
folder = "/etc/prometheus/viaduct/"
context = ssl.create_default_context(cafile=folder + "ca.pem")
context.load_cert_chain(folder + "prometheus.pem", folder + "prometheus.key")
for target in sys.argv[1:]:
    host, _, port = target.partition(":")
    plain = socket.create_connection((host, int(port)), 10)
    with context.wrap_socket(plain, server_hostname="localhost") as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: it\\r\\n\\r\\n")
        told = connection.makefile("rb").read().decode()
    print(target, re.search(r'^viaduct_build_info{daemon="([^"]*)"', told, re.MULTILINE)[1])
"""


def test_a_machine_goes_from_host_to_host_and_every_page_is_compared(site: Deployment, machine: Machine) -> None:
    witness = int(site.inside("host-a", "python", "-c", USERFAULTFD)) >= 0
    here, there = machine.way()
    for host, terms in ((there, PATIENTLY), ("host-c", AT_ONCE), (here, AT_ONCE)):
        moved = site.viaduct("migrate", machine.name, "--to", host, "--json", *terms)
        assert moved.exit_code == 0, moved.err
        told = migrated(moved)
        assert (told.outcome, told.pages_verified, told.pages_mismatched) == ("completed", PAGES, 0)
        assert told.verified_by == ("witness" if witness else "full")  # a profile that takes userfaultfd away is said
        machine.runs_at(host)


def test_memory_fills_a_link_of_200_mbit_and_travels_through_the_migration_network_alone(
    site: Deployment, machine: Machine
) -> None:
    here, there = machine.way()
    before = [counted(site, there, network, "rx") for network in (CONTROL, MIGRATION)]
    with shaped(site, "200mbit", here):
        moved = site.viaduct("migrate", machine.name, "--to", there, "--json", *AT_ONCE)
    assert moved.exit_code == 0, moved.err
    control, migration = [counted(site, there, network, "rx") for network in (CONTROL, MIGRATION)]
    told = migrated(moved)
    assert migration - before[1] >= told.wire_bytes > 10 << 20
    assert control - before[0] < 1 << 20
    first = told.rounds[0].wire_bytes / (told.rounds[0].ms / 1000)
    assert 0.5 * SHAPED_BYTES_PER_S < first < 1.1 * SHAPED_BYTES_PER_S
    assert told.pages_mismatched == 0
    machine.runs_at(there)


def test_a_host_is_evacuated_and_gets_its_machines_back(site: Deployment, machine: Machine) -> None:
    here, _ = machine.way()
    other = Machine.create(site, "companion", host=here)
    try:
        gone = site.viaduct("evacuate", here, "--parallel", "2", *PATIENTLY)
        assert gone.exit_code == 0, gone.out + gone.err
        away = site.machine_processes()
        assert sorted(uuid for found in away.values() for uuid in found) == sorted([machine.uuid, other.uuid])
        assert here not in away
        back = site.viaduct("restore", here, "--parallel", "2", *PATIENTLY)
        assert back.exit_code == 0, back.out + back.err
        assert site.machine_processes() == {here: sorted([machine.uuid, other.uuid])}
    finally:
        other.destroy()
    machine.runs_at(here)


def test_a_host_that_is_down_is_named_by_every_command_that_needs_it(site: Deployment, machine: Machine) -> None:
    here, _ = machine.way()
    with killed(site, "host-c"):
        listed = site.viaduct("host", "list")
        checked = site.viaduct("preflight", machine.name, "--to", "host-c")
        moved = site.viaduct("migrate", machine.name, "--to", "host-c")
        elsewhere = site.viaduct("preflight", machine.name, "--to", "any", *AT_ONCE)
    assert listed.exit_code == 0
    (line,) = [line for line in listed.out.splitlines() if line.startswith("host-c")]
    assert "0.2.0" not in line
    assert (checked.exit_code, moved.exit_code, elsewhere.exit_code) == (3, 3, 0), checked.err + moved.err
    assert "host-c" in checked.out + checked.err
    assert "host-c" in moved.out + moved.err
    machine.runs_at(here)


def test_nobody_is_root_and_nobody_can_become_it(site: Deployment) -> None:
    for service in (*HOSTS, *ORCHESTRATORS, "operator", "broker", "board", "etcd"):
        status = dict(
            line.split(":\t", 1) for line in site.inside(service, "cat", "/proc/1/status").splitlines() if ":\t" in line
        )
        assert "0" not in status["Uid"].split(), service
        assert {int(status[each], 16) for each in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}, service
        assert status["NoNewPrivs"] == "1", service
    for image in ("VIADUCT_IMAGE", "VIADUCT_SERVICES_IMAGE"):
        assert site.engine.docker("run", "--rm", site.environment[image], "id", "-u").strip() == "10001"


def test_everybody_has_their_own_key_and_nobody_elses(site: Deployment) -> None:
    for service in (*HOSTS, "operator", "broker", "board", "etcd"):
        keys = site.inside(service, "find", "/etc/viaduct", "-name", "*.key", "-printf", "%f %m %u\n").splitlines()
        assert keys == [f"{service}.key 600 viaduct"]


def test_every_daemon_tells_a_prometheus_that_is_configured_as_the_example_says(site: Deployment) -> None:
    text = PROMETHEUS.read_text().replace("10.231.1.", f"{CONTROL}.")
    targets = re.findall(r'"(\S+:\d+)"', text)
    files = re.search(r"ca_file: (\S+)/ca.pem", text)
    assert files is not None
    place = ("--network", f"{PROJECT}_control", "--volume", f"{PROJECT}_prometheus:{files[1]}:ro")
    told = site.engine.docker(
        "run", "--rm", *place, site.environment["VIADUCT_IMAGE"], "python", "-c", SCRAPE, *targets
    )
    by_host = {"viaduct-source-agent": HOSTS, "viaduct-dest-agent": HOSTS, "viaduct-orchestrator": ORCHESTRATORS}
    assert Counter(line.split()[1] for line in told.splitlines()) == {
        name: len(found) for name, found in by_host.items()
    }
