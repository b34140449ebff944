"""Where a process sends its spans: to the collector that `[traces]` names, or nowhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from vm_migration.daemon.configuration import Configuration
from vm_migration.errors import InvalidInput
from vm_migration.link.address import is_loopback, split_address
from vm_migration.link.tls import TlsFiles
from vm_migration.telemetry import traces

EXTRA: Final = "viaduct[traces]"


@asynccontextmanager
async def tracing(configuration: Configuration, process: str) -> AsyncIterator[None]:
    """Trace inside, where a collector is configured; what could not be sent within seconds of the end is lost.

    Raises:
        InvalidInput: The library is not installed, or the collector would be spoken to in plaintext off loopback.
    """
    endpoint = configuration.traces.endpoint
    if endpoint is None:
        yield
        return
    files = None if is_loopback(split_address(endpoint)[0]) else _files(configuration, endpoint)
    try:
        from vm_migration.daemon.opentelemetry_tracer import OpenTelemetryTracer  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        text = f"[traces] sends spans to {endpoint}, and {error.name} is not installed"
        raise InvalidInput("traces-not-installed", text, f'Install "{EXTRA}", or take [traces] out') from None
    tracer = OpenTelemetryTracer(process, endpoint, files)
    with traces.using(tracer):
        try:
            yield
        finally:
            await asyncio.to_thread(tracer.close)


def _files(configuration: Configuration, endpoint: str) -> TlsFiles:
    said, mine = configuration.traces, configuration.tls
    ca = said.ca or (mine.ca if mine else None)
    certificate = said.certificate or (mine.certificate if mine else None)
    key = said.key or (mine.key if mine else None)
    if ca is None or certificate is None or key is None:
        text = f"Spans are not sent in plaintext to {endpoint}, which is not a loopback address"
        raise InvalidInput("plaintext-refused", text, "Give [traces] ca, certificate and key, or configure [tls]")
    return TlsFiles(ca, certificate, key)
