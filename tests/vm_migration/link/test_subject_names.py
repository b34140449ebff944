"""Whom a list of who may come in names: only what GnuTLS writes in one way, either way round."""

import datetime
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vm_migration.errors import Refused
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.subject_names import first_certificate, subject_names

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def certificate(*rdns: Sequence[tuple[x509.ObjectIdentifier, str]]) -> bytes:
    """Return one whose subject has these parts."""
    parts = [x509.RelativeDistinguishedName(x509.NameAttribute(oid, value) for oid, value in part) for part in rdns]
    subject = x509.Name(parts)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + datetime.timedelta(days=1))
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def test_a_certificate_of_ours_has_two_names_and_another_host_has_others(tmp_path: Path) -> None:
    create_authority(tmp_path, "home")
    names = [
        subject_names(issue(tmp_path, Identity("home", role, name)).certificate.read_bytes())
        for name, role in (("host-a", Role.HOST), ("host-b", Role.HOST), ("ops", Role.OPERATOR))
    ]
    assert names[0] == ("O=home,OU=host,CN=host-a", "CN=host-a,OU=host,O=home")
    assert len({name for each in names for name in each}) == 6


def test_a_subject_of_one_part_has_one_name() -> None:
    assert subject_names(certificate([(NameOID.COMMON_NAME, "host-a")])) == ("CN=host-a",)


@pytest.mark.parametrize(
    "subject",
    [
        [],
        [[(NameOID.COMMON_NAME, "host-a,OU=host")]],
        [[(NameOID.COMMON_NAME, "host-*")]],
        [[(NameOID.COMMON_NAME, " host-a")]],
        [[(NameOID.COMMON_NAME, "host-a\n")]],
        [[(NameOID.COMMON_NAME, "hôte")]],
        [[(NameOID.EMAIL_ADDRESS, "a@example.org")]],
        [[(NameOID.COMMON_NAME, "host-a"), (NameOID.ORGANIZATION_NAME, "home")]],
    ],
)
def test_what_would_be_written_in_other_ways_has_no_name(
    subject: Sequence[Sequence[tuple[x509.ObjectIdentifier, str]]],
) -> None:
    with pytest.raises(Refused) as refused:
        subject_names(certificate(*subject))
    assert refused.value.code == "subject-unlisted"


def test_a_chain_is_about_its_first() -> None:
    first, second = certificate([(NameOID.COMMON_NAME, "host-a")]), certificate([(NameOID.COMMON_NAME, "ca")])
    assert first_certificate(first + second) == first == first_certificate(first)
