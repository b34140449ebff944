"""What a host's machines cannot do by themselves is not offered, and whoever wants it is told why and what to do."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.x509.oid import NameOID

from tests.vm_migration.link.test_subject_names import certificate
from vm_migration.daemon.direct_offer import features_offered, hindrance, require_listed
from vm_migration.daemon.host_facts import DIRECT_MACHINE_STREAM, FEATURES
from vm_migration.errors import Refused
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.tls import TlsFiles

REST = tuple(one for one in FEATURES if one != DIRECT_MACHINE_STREAM)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    create_authority(tmp_path, "home")
    return issue(tmp_path, Identity("home", Role.HOST, "host-b"))


def test_a_host_with_certificates_of_ours_offers_everything(files: TlsFiles) -> None:
    assert hindrance("host-b", files) is None
    assert features_offered(files) == FEATURES
    assert len(REST) == len(FEATURES) - 1


def test_a_host_without_certificates_offers_all_but_that() -> None:
    found = hindrance("host-b", None)
    assert found is not None
    assert found.code == "transport-not-offered"
    assert found.message == (
        "host-b: A machine's process connects to another host's under TLS alone, and this host has no certificates. "
        "Configure its [tls], or use --transport grpc"
    )
    assert features_offered(None) == REST


def test_a_subject_that_cannot_be_listed_is_named_and_counts_until_another_is_there(files: TlsFiles) -> None:
    ours = files.certificate.read_bytes()
    files.certificate.write_bytes(certificate([(NameOID.EMAIL_ADDRESS, "host-b@example.org")]))
    found = hindrance("host-b", files)
    assert found is not None
    assert found.code == "subject-unlisted"
    assert found.message.startswith("host-b: ")
    assert "host-b@example.org" in found.message
    assert found.message.endswith("Issue it with viaduct pki issue, or use --transport grpc")
    assert features_offered(files) == REST
    files.certificate.write_bytes(ours)
    assert features_offered(files) == FEATURES


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_certificate_that_cannot_be_read_is_none(files: TlsFiles, content: bytes | None) -> None:
    broken = replace(files, certificate=files.certificate.with_name("broken.pem"))
    if content is not None:
        broken.certificate.write_bytes(content)
    found = hindrance("host-b", broken)
    assert found is not None
    assert (found.code, str(broken.certificate) in found.message) == ("transport-not-offered", True)
    assert features_offered(broken) == REST


def test_whoever_may_be_listed_is_told_by_its_files_and_others_are_refused(files: TlsFiles) -> None:
    assert require_listed(files) is files
    with pytest.raises(Refused, match="this host has no certificates"):
        require_listed(None)
