"""An agent that only answers, a site with its certificates, and a caller."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import grpc.aio
import pytest

from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1 import types_pb2 as types
from vm_migration.api.v1.destination_pb2_grpc import (
    DestinationServicer,
    DestinationStub,
    add_DestinationServicer_to_server,
)
from vm_migration.api.v1.source_pb2_grpc import SourceServicer, add_SourceServicer_to_server
from vm_migration.errors import AttemptFailed, MigrationError
from vm_migration.link.call import call
from vm_migration.link.channel import open_channel
from vm_migration.link.direct_tls import client_context
from vm_migration.link.identity import Identity, Role, peer_identity
from vm_migration.link.pki import issue
from vm_migration.link.server import Service
from vm_migration.link.tls import TlsFiles

PEER = "host-b (loopback)"
DESTINATION = "vm_migration.api.v1.Destination"


@dataclass
class Incoming(DestinationServicer):
    """Answers with the name of its caller, after doing as told."""

    act: Callable[[], None] = lambda: None

    async def CheckIncoming(
        self,
        request: destination.CheckIncomingRequest,
        context: grpc.aio.ServicerContext[destination.CheckIncomingRequest, destination.CheckIncomingResponse],
    ) -> destination.CheckIncomingResponse:
        self.act()
        peer = peer_identity(context)
        return destination.CheckIncomingResponse(blockers=[types.Blocker(message=peer.uri if peer else request.source)])


@dataclass
class Outgoing(SourceServicer):
    """Streams two reports, then fails, or falls silent."""

    silent: bool = False

    async def Watch(
        self,
        request: source.AttemptRequest,
        context: grpc.aio.ServicerContext[source.AttemptRequest, source.AttemptReport],
    ) -> AsyncIterator[source.AttemptReport]:
        yield source.AttemptReport(sequence=1)
        yield source.AttemptReport(sequence=2)
        if self.silent:
            await asyncio.Event().wait()
        raise AttemptFailed("timeout", "The attempt took too long", "Try again")


def bulk_echo(service: str = "vm_migration.api.v1.Bulk", method: str = "Send") -> grpc.GenericRpcHandler:
    async def send(frames: AsyncIterator[bytes], _: grpc.ServicerContext) -> AsyncIterator[bytes]:
        async for frame in frames:
            yield frame[::-1]

    function = cast("Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]", send)  # as the stubs know it
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(function)
    return grpc.method_handlers_generic_handler(service, {method: handler})


def services(act: Callable[[], None] = lambda: None, *, silent: bool = False) -> list[Service]:
    incoming = Incoming(act)  # type: ignore[abstract]  # the other calls are answered UNIMPLEMENTED
    outgoing = Outgoing(silent)  # type: ignore[abstract]  # as above
    return [
        Service(DESTINATION, partial(add_DestinationServicer_to_server, incoming)),
        Service("vm_migration.api.v1.Source", partial(add_SourceServicer_to_server, outgoing)),
        Service("vm_migration.api.v1.Bulk", lambda server: server.add_generic_rpc_handlers((bulk_echo(),))),
    ]


@dataclass(frozen=True)
class Site:
    folder: Path

    def issue(self, role: str, name: str) -> TlsFiles:
        return issue(self.folder, Identity("home", Role(role), name))


async def check(address: str, tls: TlsFiles | None, peer: str = "host-b") -> str:
    async with open_channel(address, tls, peer) as channel:
        method = DestinationStub(channel).CheckIncoming
        answer = await call(method, destination.CheckIncomingRequest(source="plain"), peer=PEER, deadline=10)
        return answer.blockers[0].message


async def refusal(address: str, tls: TlsFiles | None, peer: str = "host-b") -> MigrationError:
    with pytest.raises(MigrationError) as caught:
        await check(address, tls, peer)
    return caught.value


def shown(address: str, files: TlsFiles) -> str:
    """Return the fingerprint of what a server shows to a new connection."""
    context = client_context(files)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 10) as raw,
        context.wrap_socket(raw, server_hostname="host-b") as s,
    ):
        der = s.getpeercert(binary_form=True)
    assert der is not None
    return ssl.DER_cert_to_PEM_cert(der)
