"""What gRPC shakes hands with, at both ends: TLS 1.3, as direct streams do, though nobody asks it to."""

import asyncio
import socket
import ssl
import threading

import pytest

from tests.vm_migration.link.answering_agent import Site, check, services
from vm_migration.errors import Unreachable
from vm_migration.link.direct_tls import client_context, server_context
from vm_migration.link.server import AgentServer

SECONDS = 10


def old_and_new(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return the context of a peer that would be content with TLS 1.2."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    return context


async def test_a_server_speaks_tls_1_3_with_who_can(site: Site) -> None:
    def version(address: str) -> str | None:
        host, _, port = address.rpartition(":")
        context = old_and_new(client_context(site.issue("operator", "anna")))
        with (
            socket.create_connection((host, int(port)), SECONDS) as raw,
            context.wrap_socket(raw, server_hostname="host-b") as connection,
        ):
            return connection.version()

    async with AgentServer("127.0.0.1:0", site.issue("host", "host-b"), services()) as server:
        assert await asyncio.to_thread(version, server.address) == "TLSv1.3"


async def test_a_channel_speaks_tls_1_3_with_who_can(site: Site) -> None:
    context = old_and_new(server_context(site.issue("host", "host-b"), "h2"))
    versions: list[str | None] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(SECONDS)
        with context.wrap_socket(connection, server_side=True) as secured:
            versions.append(secured.version())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        serving = threading.Thread(target=serve, args=(listener,), name="another's server")
        serving.start()
        with pytest.raises(Unreachable):  # it speaks no HTTP/2, and hangs up
            await check(f"127.0.0.1:{listener.getsockname()[1]}", site.issue("operator", "anna"))
        serving.join()
    assert versions == ["TLSv1.3"]
