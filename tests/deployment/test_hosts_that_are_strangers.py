"""Hosts that are not who they should be, a clock that is a day off, and certificates of another site.

What host-c is goes from test to test: each changes it, and none needs it as it is shipped.
"""

import pytest

from tests.deployment.deployment import Deployment
from tests.deployment.doctor import findings
from tests.deployment.machine import AT_ONCE, Machine, migrated

REFUSED = 3
STRANGER = """
set -eu
rm -rf /tmp/stranger
viaduct pki init --site {site} --folder /tmp/stranger > /tmp/said
viaduct pki issue operator --role operator --folder /tmp/stranger > /tmp/said
sed 's#^ca = .*#ca = "{ca}"#; s#^name = .*#name = "{site}"#' /etc/viaduct/viaduct.toml > /tmp/stranger/viaduct.toml
VIADUCT_CONFIG=/tmp/stranger/viaduct.toml exec viaduct "$@"
"""


def is_no_destination(site: Deployment, machine: Machine, word: str) -> None:
    """Check that nothing goes to host-c, by name or by choice, and that whoever asks is told what is wrong with it."""
    named = site.viaduct("migrate", machine.name, "--to", "host-c")
    assert named.exit_code == REFUSED, named.out
    assert "host-c" in named.err
    told = [one for one in findings(site) if one.host == "host-c"]
    assert any(word in one.message for one in told), told
    _, chosen = machine.way()
    moved = site.viaduct("migrate", machine.name, "--to", "any", *AT_ONCE)
    assert moved.exit_code == 0, moved.err
    machine.runs_at(chosen)


def test_a_second_host_of_one_name_gets_no_machine(site: Deployment, machine: Machine) -> None:
    site.replace("host-c", "namesake")
    is_no_destination(site, machine, "certificate")


def test_a_host_with_a_certificate_of_another_site_gets_no_machine(site: Deployment, machine: Machine) -> None:
    site.replace("host-c", "other-site")
    is_no_destination(site, machine, "certificate")


def test_machines_go_to_and_from_a_host_whose_clock_is_a_day_off(site: Deployment, machine: Machine) -> None:
    site.compose("build", "host-c", over="day-off")
    site.replace("host-c", "day-off")
    told = [(one.code, one.severity) for one in findings(site) if one.host == "host-c"]
    assert told == [("clock-off", "notice")]
    for host in ("host-c", "host-b"):
        moved = site.viaduct("migrate", machine.name, "--to", host, "--json", *AT_ONCE)
        assert moved.exit_code == 0, moved.err
        assert migrated(moved).pages_mismatched == 0
        machine.runs_at(host)


@pytest.mark.parametrize(("name", "ca"), [("other", "ca.pem"), ("home", "/etc/viaduct/ca.pem")])
def test_a_person_with_a_certificate_of_another_site_moves_nothing(
    site: Deployment, machine: Machine, name: str, ca: str
) -> None:
    here, there = machine.way()
    typed = ("migrate", machine.name, "--to", there)
    script = STRANGER.format(site=name, ca=ca)
    refused = site.engine.attempt("exec", site.container("operator"), "sh", "-c", script, "viaduct", *typed)
    assert refused.returncode == REFUSED, refused.stdout + refused.stderr
    machine.runs_at(here)
