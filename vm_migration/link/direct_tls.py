"""TLS of direct streams: 1.3 and nothing older, the site's own authority, a certificate from both ends."""

import socket
import ssl
from typing import Final

from cryptography import x509

from vm_migration.errors import InvalidInput, Unauthorised
from vm_migration.link.identity import Identity
from vm_migration.link.tls import TlsFiles, read_identity

PROTOCOL: Final = "viaduct-direct/1"
"""What both ends name in the handshake (ALPN), so that a gRPC server is not taken for a direct one."""


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return what a source connects with.

    Raises:
        InvalidInput: The files are unusable.
    """
    return _completed(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), files)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return what a destination answers with: every client must show a certificate of the site.

    Raises:
        InvalidInput: The files are unusable.
    """
    context = _completed(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # each connection is a new one, and shows its certificate
    return context


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


def _completed(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    material = files.load()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=material.ca.decode())
        context.load_cert_chain(files.certificate, files.key)
    except (ssl.SSLError, ValueError) as error:
        text = f"{files.certificate}, its key or {files.ca} cannot be used: {error}"
        raise InvalidInput("tls-file", text, "Check [tls], or issue it: viaduct pki issue") from None
    context.set_alpn_protocols([PROTOCOL])
    return context
