"""The three files that make a process somebody: authority, certificate, key.

Both ends always show a certificate. A private key that others can read is refused, not warned about.
"""

import stat
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography import x509

from vm_migration.errors import InvalidInput
from vm_migration.link.identity import Identity

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What the files held when they were read; the key never shows in a representation."""

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    identity: Identity


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where authority, certificate and private key lie, as PEM."""

    ca: Path
    certificate: Path
    key: Path

    def load(self) -> TlsMaterial:
        """Read the files.

        Raises:
            InvalidInput: One is missing, unreadable or not a certificate; or others than its owner can read the key.
        """
        refuse_open_secret(self.key)
        certificate = _read(self.certificate)
        return TlsMaterial(_read(self.ca), certificate, _read(self.key), _identity_in(certificate, self.certificate))


def refuse_open_secret(path: Path) -> None:
    """Accept a file with a secret only when nobody but its owner can read it.

    Raises:
        InvalidInput: It is missing, or its mode gives others access.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise _unreadable(path, error) from None
    if mode & _OTHERS:
        raise InvalidInput("key-readable", f"Others can read {path} (mode {mode:04o})", f"Run: chmod 600 {path}")


def read_identity(certificate: x509.Certificate) -> Identity:
    """Return whom a certificate names.

    Raises:
        InvalidInput: It names nobody, or more than one.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        uris: list[str] = []
    else:
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise InvalidInput("no-identity", "The certificate names nobody", "Issue it with viaduct pki issue")
    return Identity.parse(uris[0])


def server_credentials(material: TlsMaterial) -> grpc.ServerCredentials:
    """Return credentials that require a certificate of the same authority from every client."""
    pairs = [(material.key, material.certificate)]
    return grpc.ssl_server_credentials(pairs, root_certificates=material.ca, require_client_auth=True)


def channel_credentials(material: TlsMaterial) -> grpc.ChannelCredentials:
    """Return credentials that trust the authority and nobody else, and show the certificate."""
    return grpc.ssl_channel_credentials(material.ca, material.key, material.certificate)


def _identity_in(pem: bytes, path: Path) -> Identity:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise InvalidInput("bad-certificate", f"{path} is not a certificate in PEM", "Issue it again") from None
    try:
        return read_identity(certificate)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{path}: {error.message}", error.hint) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> InvalidInput:
    return InvalidInput(
        "tls-file", f"{path} cannot be read: {error.strerror}", "Check [tls], or issue it: viaduct pki issue"
    )
