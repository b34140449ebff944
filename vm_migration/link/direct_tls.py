"""TLS of direct streams: 1.3 and nothing older, the site's own authority, a certificate from both ends."""

import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

from cryptography import x509

from vm_migration.errors import InvalidInput, Unauthorised
from vm_migration.link.changed_files import NOT_RENEWED, Followed
from vm_migration.link.identity import Identity
from vm_migration.link.renewal import Renewal
from vm_migration.link.tls import LOOKS, TlsFiles, read_identity
from vm_migration.telemetry import logs

PROTOCOL: Final = "viaduct-direct/1"
"""What both ends name in the handshake (ALPN), so that a gRPC server is not taken for a direct one."""
_KERNEL_TLS: Final = 1 << 3
"""SSL_OP_ENABLE_KTLS, which `ssl` names from Python 3.12 on."""
_log: Final = logs.get(__name__)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return what a source connects with.

    Raises:
        InvalidInput: The files are unusable.
    """
    return _completed(ssl.PROTOCOL_TLS_CLIENT, files)


def server_context(files: TlsFiles, speaks: str = PROTOCOL) -> ssl.SSLContext:
    """Return what a server answers with: every client must show a certificate of the site.

    `speaks` is what it names in the handshake (ALPN).

    Raises:
        InvalidInput: The files are unusable.
    """
    context = _completed(ssl.PROTOCOL_TLS_SERVER, files, speaks)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # each connection is a new one, and shows its certificate
    return context


class ServerContexts:
    """What a server answers each new connection with: the files as they are then (vm_migration.link.renewal)."""

    def __init__(self, files: TlsFiles, speaks: str = PROTOCOL, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the files for the first time.

        Raises:
            InvalidInput: They are unusable.
        """
        self._files: Final = files
        self._speaks: Final = speaks
        self._clock: Final = clock
        self._renewal: Final = Renewal(files, clock)
        self._shown: Final = Followed(self._renewal.material)
        self._context = server_context(files, speaks)

    @property
    def site(self) -> str:
        """The site that this end is of."""
        return self._renewal.material.identity.site

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection."""
        self._renewal.renewed()
        material, now = self._renewal.material, self._clock()
        if self._shown.due(material, now):
            try:
                self._context = server_context(self._files, self._speaks)
            except InvalidInput as error:
                if self._shown.failed(material, now):
                    _log.warning(NOT_RENEWED, code=error.code, reason=error.message)
            else:
                self._shown.took(material)
        return self._context


def identity_of(connection: socket.socket) -> Identity | None:
    """Return who the peer of a connection is once hands were shaken; None without TLS.

    Raises:
        Unauthorised: Its certificate names nobody, or it speaks another protocol.
    """
    if not isinstance(connection, ssl.SSLSocket):
        return None
    if connection.selected_alpn_protocol() != PROTOCOL:
        raise Unauthorised("other-protocol", f"The peer does not speak {PROTOCOL}", "Use the address that Prepare told")
    shown = connection.getpeercert(binary_form=True)
    if shown is None:
        raise Unauthorised("no-identity", "The peer showed no certificate", "Configure [tls] on both sides")
    try:
        return read_identity(x509.load_der_x509_certificate(shown))
    except InvalidInput as error:
        raise Unauthorised("no-identity", error.message, error.hint) from None


def _completed(protocol: "ssl._SSLMethod", files: TlsFiles, speaks: str = PROTOCOL) -> ssl.SSLContext:
    """Return a context with the files, read again for as long as they are being replaced."""
    why = ""
    for _ in range(LOOKS):
        stamp, material = files.stamp(), files.load()
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.options &= ~_KERNEL_TLS  # openssl.cnf may ask for it: below its records a sealed stream could not go on
        context.set_alpn_protocols([speaks])
        try:
            context.load_verify_locations(cadata=material.ca.decode())
            context.load_cert_chain(files.certificate, files.key)  # which reads them once more
        except (ssl.SSLError, ValueError, OSError) as error:
            why = str(error)
        else:
            return context
        if files.stamp() == stamp:
            break
    text = f"{files.certificate}, its key or {files.ca} cannot be used: {why}"
    raise InvalidInput("tls-file", text, "Check [tls], or issue it: viaduct pki issue")
