"""The three files that make a process somebody: authority, certificate, key.

Both ends always show a certificate. A private key that others can read is refused, not warned about. Files that are
being replaced are read again until certificate and key fit each other.
"""

import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from vm_migration.errors import InvalidInput
from vm_migration.link.identity import Identity

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
LOOKS: Final = 20
"""How often files are read that do not fit each other, `_APART` seconds apart; two renames take microseconds."""
_APART: Final = 0.001

Stamp = tuple[tuple[int, int, int, int], ...]
"""What changes when one of the files is replaced, written, or opened to others: inode, size and both times of each."""


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What the files held when they were read; the key never shows in a representation.

    `expires` is when the certificate ends, or the authority that signed it, whichever is first.
    """

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    identity: Identity
    expires: datetime


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where authority, certificate and private key lie, as PEM."""

    ca: Path
    certificate: Path
    key: Path

    def load(self) -> TlsMaterial:
        """Read the files.

        Raises:
            InvalidInput: One is missing, unreadable or not a certificate; the key is another certificate's; or others
                than its owner can read the key.
        """
        for _ in range(LOOKS - 1):
            try:
                return self._read_once()
            except InvalidInput as error:
                if error.code not in _PASSING:
                    raise
            time.sleep(_APART)  # whoever replaces them has half of it done
        return self._read_once()

    def stamp(self) -> Stamp:
        """Return what tells whether the files are those of another time.

        Raises:
            InvalidInput: One is missing.
        """
        try:
            return stamp_of((self.ca, self.certificate, self.key))
        except OSError as error:
            raise _unreadable(Path(error.filename), error) from None

    def _read_once(self) -> TlsMaterial:
        refuse_open_secret(self.key)
        certificate, key, ca = _read(self.certificate), _read(self.key), _read(self.ca)
        parsed = _parsed(certificate, self.certificate)
        identity = _identity_in(parsed, self.certificate)
        if not _fits(key, parsed):
            text = f"{self.key} is not the key of {self.certificate}"
            raise InvalidInput("tls-pair", text, "Replace both together, or issue them again: viaduct pki issue")
        return TlsMaterial(ca, certificate, key, identity, _end(parsed, ca))


_PASSING: Final = frozenset({"tls-pair", "bad-certificate"})
"""What files look like while they are being replaced."""


def stamp_of(paths: Iterable[Path]) -> Stamp:
    """Return what tells whether files are those of another time.

    Raises:
        OSError: One is missing.
    """
    found = [path.stat() for path in paths]
    return tuple((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) for status in found)


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


def channel_credentials(material: TlsMaterial) -> grpc.ChannelCredentials:
    """Return credentials that trust the authority and nobody else, and show the certificate."""
    return grpc.ssl_channel_credentials(material.ca, material.key, material.certificate)


def _parsed(pem: bytes, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise InvalidInput("bad-certificate", f"{path} is not a certificate in PEM", "Issue it again") from None


def _identity_in(certificate: x509.Certificate, path: Path) -> Identity:
    try:
        return read_identity(certificate)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{path}: {error.message}", error.hint) from None


def _fits(key: bytes, certificate: x509.Certificate) -> bool:
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return private.public_key() == certificate.public_key()


def _end(certificate: x509.Certificate, ca: bytes) -> datetime:
    """Return when a certificate is good for nothing more; an authority's file may hold several, old and new."""
    try:
        authorities = x509.load_pem_x509_certificates(ca)
    except ValueError:  # the handshake says what is wrong with it
        authorities = []
    signers = [one.not_valid_after_utc for one in authorities if one.subject == certificate.issuer]
    return min(certificate.not_valid_after_utc, max(signers, default=certificate.not_valid_after_utc))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> InvalidInput:
    return InvalidInput(
        "tls-file", f"{path} cannot be read: {error.strerror}", "Check [tls], or issue it: viaduct pki issue"
    )
