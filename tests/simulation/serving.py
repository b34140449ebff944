"""The servers' end of the simulated network: the real handlers, behind the real boundary.

What a generated `add_..._to_server` registers is called through vm_migration.link.boundary, with a context that tells
the caller's identity as TLS would. Messages are the bytes that would have been sent.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, Never, cast

import grpc
import grpc.aio

from tests.simulation.virtual_loop import Process
from vm_migration.link.authorisation import authorise, authorise_nobody_in_particular
from vm_migration.link.boundary import Boundary
from vm_migration.link.identity import Identity
from vm_migration.link.server import Service

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Status:
    """How a call ended that did not end well."""

    code: grpc.StatusCode
    details: str
    trailing: Metadata = ()

    def error(self) -> grpc.aio.AioRpcError:
        return grpc.aio.AioRpcError(self.code, grpc.aio.Metadata(), grpc.aio.Metadata(*self.trailing), self.details)


class CallFailed(Exception):
    """A handler ended with a status."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.details)
        self.status: Final = status


class Handler(NamedTuple):
    """What gRPC makes of a method, as vm_migration.link.boundary sees it."""

    request_streaming: bool
    response_streaming: bool
    request_deserializer: Callable[[bytes], object] | None
    response_serializer: Callable[[object], bytes] | None
    unary_unary: object
    unary_stream: object
    stream_unary: "Callable[[object, CallContext], Awaitable[object]] | None"
    stream_stream: "Callable[[AsyncIterator[object], CallContext], AsyncIterator[object]] | None"


class _GenericHandler:
    def service(self, details: "_Details") -> Handler | None:
        """Return the handler of the method that is called."""
        raise NotImplementedError


@dataclass
class _Details:
    method: str
    invocation_metadata: Metadata = ()


@dataclass
class CallContext:
    """What a servicer is given beside its request."""

    caller: Identity
    metadata: Metadata
    aborted: Status | None = None
    request: object = None
    """Where it is one message."""

    async def read(self) -> object:
        return self.request

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {"transport_security_type": [b"ssl"], "peer_uri": [self.caller.uri.encode()]}

    def invocation_metadata(self) -> Metadata:
        return self.metadata

    def peer(self) -> str:
        return f"simulated:{self.caller.name}"

    def set_code(self, code: grpc.StatusCode) -> None:
        """What a generated servicer says before it raises: the boundary tells that by itself."""

    def set_details(self, details: str) -> None:
        """See `set_code`."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> Never:
        self.aborted = Status(code, details, tuple(trailing_metadata))
        raise grpc.aio.AbortError


@dataclass
class Endpoint:
    """One address at which a process serves; without a site, anybody, as a plaintext server does."""

    host: str
    process: Process
    site: str
    _generic: list[_GenericHandler] = field(default_factory=list)
    _handlers: dict[str, Handler | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._boundary = Boundary(partial(authorise, self.site) if self.site else authorise_nobody_in_particular)

    def register(self, services: Sequence[Service]) -> None:
        for service in services:
            service.register(cast("grpc.aio.Server", self))

    def add_generic_rpc_handlers(self, handlers: Iterable[_GenericHandler]) -> None:
        self._generic.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, object]) -> None:
        """The generic handlers answer for them too."""

    async def handler(self, method: str) -> Handler:
        """Return a method's handler as the boundary guards it.

        Raises:
            CallFailed: There is none.
        """
        if method not in self._handlers:
            self._handlers[method] = await self._guarded(method)
        found = self._handlers[method]
        if found is None:
            raise CallFailed(Status(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
        return found

    async def _guarded(self, method: str) -> Handler | None:
        details = _Details(method)

        async def find(_details: object) -> Handler | None:
            found = (each.service(details) for each in self._generic)
            return next((each for each in found if each is not None), None)

        wrapped = await self._boundary.intercept_service(
            cast("Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[object, object] | None]]", find),
            cast("grpc.HandlerCallDetails", details),
        )
        return cast("Handler | None", wrapped)

    async def answer(self, method: str, payload: bytes, context: CallContext) -> bytes:
        """Serve a unary call.

        Raises:
            CallFailed: It ended with a status.
        """
        handler = await self.handler(method)
        if handler.stream_unary is None or handler.request_deserializer is None or handler.response_serializer is None:
            raise CallFailed(Status(grpc.StatusCode.INTERNAL, f"{method} is no unary call"))
        context.request = handler.request_deserializer(payload)
        try:
            response = await handler.stream_unary(None, context)
        except grpc.aio.AbortError:
            raise CallFailed(context.aborted or _UNKNOWN) from None
        return handler.response_serializer(response)

    async def stream(
        self, method: str, payload: bytes | None, messages: AsyncIterator[bytes], context: CallContext
    ) -> AsyncIterator[bytes]:
        """Serve a call that answers with a stream; `payload` is the one request, or None where they are a stream too.

        Raises:
            CallFailed: It ended with a status.
        """
        handler = await self.handler(method)
        serialize = handler.response_serializer or _as_it_is
        try:
            if handler.stream_stream is None:
                raise CallFailed(Status(grpc.StatusCode.INTERNAL, f"{method} does not stream"))
            if payload is not None and handler.request_deserializer is not None:
                context.request = handler.request_deserializer(payload)
            async for answer in handler.stream_stream(messages, context):
                yield serialize(answer)
        except grpc.aio.AbortError:
            raise CallFailed(context.aborted or _UNKNOWN) from None


_UNKNOWN: Final = Status(grpc.StatusCode.UNKNOWN, "Aborted")


def _as_it_is(message: object) -> bytes:
    if not isinstance(message, bytes):
        raise TypeError(f"{type(message).__name__} was not serialized")
    return message


async def cut_off(task: "asyncio.Task[None]") -> None:
    """Cancel a handler whose caller has gone."""
    task.cancel()
