"""Agents that do as told, for what the boundary writes down of calls."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc.aio

from vm_migration.api.v1 import destination_pb2, source_pb2, types_pb2
from vm_migration.api.v1.destination_pb2_grpc import DestinationServicer
from vm_migration.api.v1.source_pb2_grpc import SourceServicer


@dataclass
class Taking(DestinationServicer):
    """Does as told at a Take."""

    act: Callable[[], None] = lambda: None

    async def Take(
        self,
        request: types_pb2.TakeRequest,
        context: grpc.aio.ServicerContext[types_pb2.TakeRequest, destination_pb2.IncomingReport],
    ) -> destination_pb2.IncomingReport:
        self.act()
        return destination_pb2.IncomingReport()

    async def DescribeIncoming(
        self,
        request: destination_pb2.DescribeIncomingRequest,
        context: grpc.aio.ServicerContext[destination_pb2.DescribeIncomingRequest, destination_pb2.IncomingReport],
    ) -> destination_pb2.IncomingReport:
        return destination_pb2.IncomingReport()


@dataclass
class Holding(SourceServicer):
    """Holds a Cancel up until its caller goes away; `came` tells that it is there."""

    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def Cancel(
        self,
        request: source_pb2.AttemptRequest,
        context: grpc.aio.ServicerContext[source_pb2.AttemptRequest, source_pb2.AttemptReport],
    ) -> source_pb2.AttemptReport:
        self.came.set()
        await asyncio.Event().wait()
        return source_pb2.AttemptReport()
