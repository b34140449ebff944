"""A daemon's metrics over HTTP, for a Prometheus that comes for them: GET /metrics, one answer a connection.

::

    on loopback    plaintext, to whoever has a user on the host
    elsewhere      TLS as between the daemons; any certificate of the site may read, a viewer's, say

A request has `SECONDS` to come and to be answered, and `MOST` at a time are taken in.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Final

from vm_migration.errors import InternalError, InvalidInput, MigrationError
from vm_migration.link.address import is_loopback, join_address, split_address
from vm_migration.link.direct_tls import ServerContexts
from vm_migration.link.server import require_free
from vm_migration.link.tls import TlsFiles
from vm_migration.telemetry import logs
from vm_migration.telemetry.daemons import Daemon
from vm_migration.telemetry.gauges import Read

SECONDS: Final = 5.0
MOST: Final = 16
_HEAD: Final = 8192
"""Bytes of a request."""
_log: Final = logs.get(__name__)


@contextlib.asynccontextmanager
async def metrics_endpoint(address: str, daemon: Daemon, read: Read, files: TlsFiles | None) -> AsyncIterator[str]:
    """Answer while the context is entered, and yield where.

    Raises:
        InvalidInput: Not an address of this machine, plaintext off loopback, or unusable TLS files.
        Refused: Another process listens there.
    """
    host, port = split_address(address)
    contexts = None if is_loopback(host) else _contexts(address, files)
    require_free(address)
    endpoint = _Endpoint(daemon, read, files, contexts)
    server = await asyncio.start_server(endpoint.serve, host, port, limit=_HEAD)
    try:
        yield join_address(host, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await endpoint.close()


def _contexts(address: str, files: TlsFiles | None) -> ServerContexts:
    if files is None:
        text = f"Metrics are not told in plaintext at {address}, which is not a loopback address"
        raise InvalidInput("plaintext-refused", text, "Configure [tls], or listen at 127.0.0.1")
    return ServerContexts(files, "http/1.1")


class _Endpoint:
    def __init__(self, daemon: Daemon, read: Read, files: TlsFiles | None, contexts: ServerContexts | None) -> None:
        self._daemon: Final = daemon
        self._read: Final = read
        self._files: Final = files
        self._contexts: Final = contexts
        self._serving: Final[set[asyncio.Task[None]]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._serving) >= MOST:
            writer.transport.abort()
            return
        self._serving.add(task)
        try:
            async with asyncio.timeout(SECONDS):
                await self._exchange(reader, writer)
        except (OSError, ssl.SSLError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()  # a peer that goes, is silent, or speaks something else; nobody waits for it
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            self._serving.discard(task)
            writer.close()

    async def close(self) -> None:
        """End what is under way."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._contexts is not None:
            await writer.start_tls(self._contexts.context(), ssl_handshake_timeout=SECONDS)
        status, kind, body = await self._answer(await reader.readuntil(b"\r\n\r\n"))
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def _answer(self, request: bytes) -> tuple[str, str, bytes]:
        from vm_migration.daemon.metrics_text import metrics_page  # noqa: PLC0415  # others start without it

        lines = request.decode("latin-1").split("\r\n")
        method, _, rest = lines[0].partition(" ")
        target = rest.partition(" ")[0].partition("?")[0]
        if target != "/metrics":
            return "404 Not Found", "text/plain", b"There is /metrics here.\n"
        if method != "GET":
            return "405 Method Not Allowed", "text/plain", b"GET alone.\n"
        try:
            readings = await self._read()
        except MigrationError as error:  # a store that rests, say
            return "503 Service Unavailable", "text/plain; charset=utf-8", f"{error.message}\n".encode()
        except Exception as error:  # noqa: BLE001 - a fault of ours in reading ends nothing but this answer
            _log.error("metrics not read", exc_info=error)
            return "500 Internal Server Error", "text/plain", f"{InternalError.__name__}: see the log\n".encode()
        accept = next((line[7:].strip() for line in lines[1:] if line.lower().startswith("accept:")), "")
        body, kind = await asyncio.to_thread(metrics_page, self._daemon, readings, self._files, accept)
        return "200 OK", kind, body
