"""A destination agent that takes a machine in as the real one does, and comes to a halt where a test says so."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import grpc
import grpc.aio
import numpy as np

from dest_agent.answering import answered
from tests.fakes.fake_destination import FakeDestination
from tests.fakes.offering_host import OfferingHost
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.api.v1.destination_pb2_grpc import add_DestinationServicer_to_server
from vm_migration.api.v1.machine_pb2_grpc import add_HostServicer_to_server
from vm_migration.daemon.host_facts import FEATURES
from vm_migration.link.served import Context
from vm_migration.link.server import AgentServer, Service
from vm_migration.transfer.frames import Ack, Barrier, Pages
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.wire.ack import encode_ack
from vm_migration.wire.bitmap_codec import decode_bitmap
from vm_migration.wire.frame import decode


@dataclass
class ReceivingDestination(FakeDestination):
    """`features` are what it offers; without any it is of version 0.1.

    `halts` names the step at which it stops to act: open N, pages N, barrier N (N: a round), finish.
    """

    attempt: str = ""
    pages: int = 1
    features: tuple[str, ...] = FEATURES
    halts: str = ""
    announced: list[int] = field(default_factory=list)
    """The pages of each round."""
    halted: asyncio.Event = field(default_factory=asyncio.Event)
    image: IncomingImage = field(init=False)

    def __post_init__(self) -> None:
        self.words = np.zeros((self.pages, 512), dtype=np.uint64)
        self.image = IncomingImage(self.words, UUID(self.attempt), 1)

    async def OpenRound(self, request: destination_pb2.OpenRoundRequest, context: Context) -> types_pb2.Empty:
        del context
        await self._step(f"open {request.round}")
        announced = decode_bitmap(self.pages, request.bitmap)
        self.announced.append(announced.count())
        self.image.open_round(request.round, announced)
        return types_pb2.Empty()

    async def Finish(self, request: destination_pb2.FinishRequest, context: Context) -> destination_pb2.FinishResponse:
        del context
        await self._step("finish")
        assert self.image.whole
        result = self.image.verify()
        return destination_pb2.FinishResponse(
            pause=request.pause, ready=result.whole, pages_verified=result.pages_verified
        )

    async def send(self, messages: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes, None]:
        del context
        async with aclosing(answered(self, messages, 0, tells=bool(self.features))) as answers:
            async for answer in answers:
                yield encode_ack(answer)

    async def take(self, message: bytes | memoryview, stream: int) -> Ack | None:
        frame = decode(message)
        if isinstance(frame.body, Pages):
            await self._step(f"pages {frame.place.round}")
        if isinstance(frame.body, Barrier):
            await self._step(f"barrier {frame.place.round}")
            assert "cut-rounds" in self.features or not frame.body.cut
        return self.image.apply(frame, stream)

    def progress(self, stream: int) -> Ack:
        return self.image.progress(stream)

    async def _step(self, name: str) -> None:
        if name == self.halts:
            self.halted.set()
            await asyncio.Event().wait()


@asynccontextmanager
async def receiving(destination: ReceivingDestination) -> AsyncIterator[ReceivingDestination]:
    """Serve it on loopback."""

    def register(server: grpc.aio.Server) -> None:
        add_DestinationServicer_to_server(destination, server)
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(destination.send)
        handlers = grpc.method_handlers_generic_handler("vm_migration.api.v1.Bulk", {"Send": handler})
        server.add_generic_rpc_handlers((handlers,))

    services = [Service("vm_migration.api.v1.Destination", register)]
    if destination.features:
        services.append(
            Service(
                "vm_migration.api.v1.Host",
                partial(add_HostServicer_to_server, OfferingHost(lambda: destination.features)),
            )
        )
    async with AgentServer("127.0.0.1:0", None, services, grace=0.0) as server:
        destination.address = server.address
        yield destination
