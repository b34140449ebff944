"""Certificates that end soon are told by the doctor: this command's own, and what each daemon shows."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.diagnosis.certificates import certificate_findings
from orchestrator.diagnosis.expiry import expiry_finding
from orchestrator.diagnosis.finding import Code
from vm_migration.daemon.configuration import Configuration, load
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import VALID_DAYS, create_authority, issue, renew
from vm_migration.link.server import AgentServer
from vm_migration.link.tls import TlsFiles

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (timedelta(days=31), None),
        (timedelta(days=30), "notice"),
        (timedelta(days=8), "notice"),
        (timedelta(days=7), "problem"),
        (timedelta(0), "problem"),
        (timedelta(days=-400), "problem"),
    ],
)
def test_who_is_told_when(left: timedelta, said: str | None) -> None:
    found = expiry_finding("The certificate", "host-a", NOW + left, NOW)
    assert (found and found.severity) == said
    if found:
        assert ("has ended" in found.message) is (left <= timedelta(0))
        assert "viaduct pki renew host-a" in found.hint


def ending_in(days: int) -> datetime:
    """Return when a certificate was issued that ends in so many days."""
    return NOW - timedelta(days=VALID_DAYS - 2 - days)


def configured(folder: Path, mine: TlsFiles, addresses: dict[str, str]) -> Configuration:
    hosts = "".join(
        f'[host.{name}]\nsource = "{where}"\ndest = "127.0.0.1:{number}"\n'
        for number, (name, where) in enumerate(addresses.items(), 1)
    )
    tls = f'[tls]\nca = "{mine.ca}"\ncertificate = "{mine.certificate}"\nkey = "{mine.key}"\n'
    path = folder / "viaduct.toml"
    path.write_text(hosts + tls)
    return load(path, {})


async def test_every_certificate_that_ends_soon_is_told_and_no_other(tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    create_authority(pki, "home")
    hosts = {"fresh": VALID_DAYS - 2, "soon": 20, "sooner": 3, "ended": -1}
    files = {name: issue(pki, Identity("home", Role.HOST, name), now=ending_in(days)) for name, days in hosts.items()}
    mine = issue(pki, Identity("home", Role.OPERATOR, "anna"), now=ending_in(5))
    async with (
        AgentServer("127.0.0.1:0", files["fresh"], []) as fresh,
        AgentServer("127.0.0.1:0", files["soon"], []) as soon,
        AgentServer("127.0.0.1:0", files["sooner"], []) as sooner,
        AgentServer("127.0.0.1:0", files["ended"], []) as ended,
    ):
        servers = {"fresh": fresh, "soon": soon, "sooner": sooner, "ended": ended}
        addresses = {name: server.address for name, server in servers.items()} | {"silent": "127.0.0.1:9"}
        configuration = configured(tmp_path, mine, addresses)
        found = await certificate_findings(configuration, NOW)
        assert {one.code for one in found} == {Code.CERTIFICATE_EXPIRES}
        assert [(one.host, one.severity) for one in found] == [
            ("", "problem"),
            ("soon", "notice"),
            ("sooner", "problem"),
            ("ended", "problem"),
        ]
        assert "viaduct://home/operator/anna" in found[0].message
        assert "has ended" in found[3].message
        for name in ("soon", "sooner", "ended", "anna"):
            renew(pki, name)
        assert await certificate_findings(configuration, NOW) == ()


async def test_an_authority_that_ends_before_its_certificates_is_told(tmp_path: Path) -> None:
    create_authority(tmp_path, "home")
    mine = issue(tmp_path, Identity("home", Role.OPERATOR, "anna"), now=NOW + timedelta(days=40))
    expires = mine.load().expires
    assert expires < NOW + timedelta(days=VALID_DAYS)
    found = await certificate_findings(configured(tmp_path, mine, {}), expires - timedelta(days=1))
    assert [one.severity for one in found] == ["problem"]


async def test_without_certificates_none_ends() -> None:
    assert await certificate_findings(load(None, {"VIADUCT_INSECURE": "1"}), NOW) == ()
