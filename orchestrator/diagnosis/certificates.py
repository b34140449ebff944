"""When the site's certificates end: this command's own, and the one that each daemon shows to a new connection."""

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from orchestrator.client import PEER
from orchestrator.diagnosis.expiry import expired_finding, expiry_finding
from orchestrator.diagnosis.finding import Finding
from vm_migration.daemon.configuration import Configuration
from vm_migration.link.address import split_address
from vm_migration.link.tls import TlsFiles

_SECONDS: Final = 5.0
_EXPIRED: Final = 10
"""What OpenSSL calls X509_V_ERR_CERT_HAS_EXPIRED."""


@dataclass(frozen=True, slots=True)
class _Server:
    """A daemon, as people and as certificates name it; `host` is empty for the orchestrator."""

    words: str
    address: str
    name: str
    host: str


async def certificate_findings(configuration: Configuration, now: datetime) -> tuple[Finding, ...]:
    """Return what ends soon. Who does not answer, or shows another certificate, is not told of here.

    Raises:
        InvalidInput: The own TLS files are unusable, or none is configured.
    """
    files = configuration.tls_files()
    if files is None:
        return ()
    own = files.load()
    mine = expiry_finding(f"The certificate of this command ({own.identity.uri})", own.identity.name, own.expires, now)
    told = await asyncio.gather(*(_looked_at(server, files, now) for server in _servers(configuration)))
    return tuple(finding for finding in (mine, *told) if finding is not None)


def _servers(configuration: Configuration) -> Iterator[_Server]:
    for name, host in configuration.host.items():
        yield _Server(f"The certificate of {name}'s source agent", host.source, name, name)
        yield _Server(f"The certificate of {name}'s dest agent", host.dest, name, name)
    for address in configuration.site.orchestrators:
        yield _Server(f"The certificate of the orchestrator at {address}", address, PEER, "")


async def _looked_at(server: _Server, files: TlsFiles, now: datetime) -> Finding | None:
    try:
        async with asyncio.timeout(_SECONDS):
            expires = await _shown(server, files)
    except ssl.SSLCertVerificationError as error:
        return expired_finding(server.words, server.name, host=server.host) if error.verify_code == _EXPIRED else None
    except (OSError, TimeoutError):
        return None
    return expiry_finding(server.words, server.name, expires, now, host=server.host)


async def _shown(server: _Server, files: TlsFiles) -> datetime:
    """Shake hands, and return when what the daemon shows ends."""
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    host, port = split_address(server.address)
    _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=server.name)
    try:
        certificate: dict[str, str] = writer.get_extra_info("peercert")
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    finally:
        writer.transport.abort()
