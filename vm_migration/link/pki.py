"""A site's own certificate authority, for sites that have none.

::

    folder/ca.pem  ca.key          the authority; ca.key need not stay on any host
    folder/<name>.pem  <name>.key  one identity; the key has mode 0600

Certificates are valid from two days back, since hosts' clocks differ, for 825 days, and hold P-256 keys. Those of
operators and viewers can only be used as clients, so that nobody poses as a host with one (RFC 5280, 4.2.1.12).
"""

import contextlib
import datetime
import ipaddress
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vm_migration.errors import InvalidInput, Refused
from vm_migration.link.identity import NAME_ALLOWED, Identity, Role, is_name
from vm_migration.link.tls import TlsFiles, read_identity, refuse_open_secret

VALID_DAYS: Final = 825
_BACKDATED: Final = datetime.timedelta(days=2)
_SERVES: Final = frozenset({Role.HOST, Role.ORCHESTRATOR})


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What `viaduct pki show` tells of one certificate; an authority has no identity."""

    subject: str
    issuer: str
    identity: Identity | None
    names: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime
    authority: bool
    sha256: str


def create_authority(folder: Path, site: str) -> Path:
    """Make a site's authority in the folder and return its certificate's path.

    Raises:
        Refused: The folder holds one already; nothing is changed.
        InvalidInput: The site cannot be named so, or the folder cannot be written.
    """
    if not is_name(site):
        raise InvalidInput("bad-name", f'"{site[:80]}" cannot name a site', f"Use {NAME_ALLOWED}")
    if (folder / "ca.pem").exists() or (folder / "ca.key").exists():
        raise Refused("authority-exists", f"{folder} holds an authority already", "Use it, or choose another folder")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, site),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Viaduct site {site}"),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _draft(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(folder / "ca.key", _pem(key), 0o600)
    _write(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return folder / "ca.pem"


def issue(
    folder: Path, identity: Identity, addresses: Sequence[str] = (), now: datetime.datetime | None = None
) -> TlsFiles:
    """Issue a certificate with the folder's authority and return its three files; `now` is the clock's where left out.

    Addresses are IP addresses or DNS names at which the identity may also be met; its own name, localhost and the
    loopback addresses are always there.

    Raises:
        Refused: The folder holds a certificate of that name; nothing is changed.
        InvalidInput: No authority in the folder, one of another site, or an address that is none.
    """
    signer = _authority(folder)
    _require_site(signer[0], identity)
    files = TlsFiles(folder / "ca.pem", folder / f"{identity.name}.pem", folder / f"{identity.name}.key")
    if identity.name == "ca" or files.certificate.exists() or files.key.exists():
        raise Refused(
            "certificate-exists", f"{files.certificate} exists already", "Move it away, or choose another name"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(identity, addresses, key.public_key(), signer, now)
    _write(files.key, _pem(key), 0o600)
    _write(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return files


def renew(folder: Path, name: str) -> TlsFiles:
    """Issue the folder's certificate of a name again, with a new key and the same names, in the old one's place.

    Whoever reads the files meanwhile has the old pair or the new one, or sees for a moment that they do not fit.

    Raises:
        InvalidInput: There is no such certificate, or none of an identity; no authority, or one of another site.
            Nothing is changed.
    """
    files = TlsFiles(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
    before = inspect(files.certificate)
    if before.identity is None:
        raise InvalidInput("no-identity", f"{files.certificate} names nobody", "Issue one: viaduct pki issue")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".renew-") as beside:
        signer = _authority(folder)
        _require_site(signer[0], before.identity)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(before.identity, before.names, key.public_key(), signer)
        fresh_key, fresh = Path(beside) / files.key.name, Path(beside) / files.certificate.name
        _write(fresh_key, _pem(key), 0o600)
        _write(fresh, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        fresh_key.replace(files.key)
        fresh.replace(files.certificate)
    return files


def inspect(path: Path) -> CertificateFacts:
    """Read a certificate.

    Raises:
        InvalidInput: The file cannot be read or is not a certificate.
    """
    certificate = _load_certificate(path)
    identity = None
    with contextlib.suppress(InvalidInput):
        identity = read_identity(certificate)
    return CertificateFacts(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        identity=identity,
        names=_names(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        authority=_is_authority(certificate),
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def _certificate(
    identity: Identity,
    addresses: Sequence[str],
    public: ec.EllipticCurvePublicKey,
    signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    now: datetime.datetime | None = None,
) -> x509.Certificate:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.site),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, identity.role),
            x509.NameAttribute(NameOID.COMMON_NAME, identity.name),
        ]
    )
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if identity.role in _SERVES:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    authority, authority_key = signer
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _draft(subject, authority.subject, public, now)
        .add_extension(_alternative_names(identity, addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(signed_by, critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _draft(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime.datetime | None = None
) -> x509.CertificateBuilder:
    start = (now or datetime.datetime.now(datetime.UTC)).replace(microsecond=0) - _BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=VALID_DAYS))
    )


def _alternative_names(identity: Identity, addresses: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
    for text in dict.fromkeys([identity.name, "localhost", "127.0.0.1", "::1", *addresses]):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            if not text or not all(is_name(label) for label in text.split(".")):
                raise InvalidInput(
                    "bad-address", f'"{text[:80]}" is neither an IP address nor a DNS name', ""
                ) from None
            names.append(x509.DNSName(text))
    return x509.SubjectAlternativeName(names)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = _load_certificate(folder / "ca.pem")
    refuse_open_secret(folder / "ca.key")
    try:
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except (OSError, ValueError):
        raise InvalidInput("bad-key", f"{folder / 'ca.key'} cannot be read as a private key", "") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise InvalidInput("bad-key", f"{folder / 'ca.key'} is not the key of {folder / 'ca.pem'}", "")
    return certificate, key


def _require_site(authority: x509.Certificate, identity: Identity) -> None:
    site = _site(authority)
    if identity.site != site:
        raise InvalidInput(
            "other-site", f"The authority is of site {site}, not {identity.site}", "Use the site's own folder"
        )


def _site(authority: x509.Certificate) -> str:
    values = authority.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(values[0].value) if values else ""


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise InvalidInput(
            "tls-file", f"{path} cannot be read: {error.strerror}", "Make one: viaduct pki init"
        ) from None
    except ValueError:
        raise InvalidInput("bad-certificate", f"{path} is not a certificate in PEM", "") from None


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = (str(address) for address in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Created with its mode, so that a key is at no moment readable by others.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    except OSError as error:
        raise InvalidInput(
            "cannot-write", f"{path} cannot be written: {error.strerror}", "Choose another folder"
        ) from None
