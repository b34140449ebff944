"""A site's authority, and the certificates it issues."""

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509

from vm_migration.errors import InvalidInput, Refused
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, inspect, issue
from vm_migration.link.tls import TlsFiles

HOST_A = Identity("home", Role.HOST, "host-a")


def test_a_certificate_names_its_identity_and_addresses(tmp_path: Path) -> None:
    create_authority(tmp_path, "home")
    files = issue(tmp_path, HOST_A, ["10.0.0.1", "host-a.example.org"])
    facts = inspect(files.certificate)
    assert facts.identity == HOST_A
    assert HOST_A.uri == "viaduct://home/host/host-a"
    assert set(facts.names) == {"host-a", "localhost", "127.0.0.1", "::1", "10.0.0.1", "host-a.example.org"}
    assert not facts.authority
    assert inspect(files.ca).authority
    assert inspect(files.ca).identity is None


def test_validity_starts_two_days_back_and_lasts_825_days(tmp_path: Path) -> None:
    create_authority(tmp_path, "home")
    facts = inspect(issue(tmp_path, HOST_A).certificate)
    assert facts.not_after - facts.not_before == datetime.timedelta(days=825)
    age = datetime.datetime.now(datetime.UTC) - facts.not_before
    assert datetime.timedelta(days=2) <= age < datetime.timedelta(days=2, minutes=5)


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    create_authority(tmp_path, "home")
    files = issue(tmp_path, HOST_A)
    for key in (tmp_path / "ca.key", files.key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "PRIVATE" not in repr(files.load())
    files.key.chmod(0o640)
    with pytest.raises(InvalidInput) as caught:
        files.load()
    assert caught.value.code == "key-readable"
    assert str(files.key) in caught.value.hint


@pytest.mark.parametrize(
    ("role", "serves"), [("host", True), ("orchestrator", True), ("operator", False), ("viewer", False)]
)
def test_only_hosts_and_orchestrators_may_serve(tmp_path: Path, role: str, serves: bool) -> None:
    create_authority(tmp_path, "home")
    files = issue(tmp_path, Identity("home", Role(role), "somebody"))
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert (x509.oid.ExtendedKeyUsageOID.SERVER_AUTH in usages) is serves


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    create_authority(tmp_path, "home")
    issue(tmp_path, HOST_A)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Refused):
        create_authority(tmp_path, "home")
    with pytest.raises(Refused):
        issue(tmp_path, HOST_A)
    with pytest.raises(Refused):
        issue(tmp_path, Identity("home", Role.HOST, "ca"))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_site_is_not_served(tmp_path: Path) -> None:
    create_authority(tmp_path, "home")
    with pytest.raises(InvalidInput) as caught:
        issue(tmp_path, Identity("away", Role.HOST, "host-a"))
    assert caught.value.code == "other-site"


@pytest.mark.parametrize("name", ["", "Host", "a_b", "-a", "a-", "a/b", "a+b", "a#b", "a b", "x" * 64, "ä", "a\n"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        Identity("home", Role.HOST, name)
    with pytest.raises(InvalidInput):
        Identity(name, Role.HOST, "host-a")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "viaduct://home/host",
        "viaduct://home/king/a",
        "https://home/host/a",
        "viaduct://home/host/a/b",
        "home/host/a",
    ],
)
def test_bad_uris_are_refused(uri: str) -> None:
    with pytest.raises(InvalidInput):
        Identity.parse(uri)


def test_bad_addresses_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    create_authority(tmp_path, "home")
    with pytest.raises(InvalidInput):
        issue(tmp_path, HOST_A, ["not an address"])
    assert {path.name for path in tmp_path.iterdir()} == {"ca.pem", "ca.key"}


def test_missing_files_are_named(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "ca.pem", tmp_path / "this.pem", tmp_path / "this.key")
    with pytest.raises(InvalidInput) as caught:
        files.load()
    assert str(files.key) in caught.value.message
    with pytest.raises(InvalidInput):
        issue(tmp_path, HOST_A)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    create_authority(tmp_path, "home")
    files = issue(tmp_path, HOST_A)
    files.certificate.write_text("nonsense")
    with pytest.raises(InvalidInput) as caught:
        files.load()
    assert caught.value.code == "bad-certificate"
    with pytest.raises(InvalidInput):
        TlsFiles(files.ca, files.ca, files.key).load()
